"""Tasks that run in the test's process, so that training libraries are imported once for many of them. Knows no queue."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from pydantic import ValidationError

from jobs.param_errors import problems_of
from jobs.permissions import Grants
from jobs.task import InvalidJob, JobKind, Outcome, Plan, Stopped, StopReason
from jobs.tasks.kinds import task_for
from tests.doubles.heard import RecordingReporter
from tests.doubles.tiny_checkpoint import task_context

EVERYTHING = Grants(data_roots=(Path.cwd().anchor,))


@dataclass(frozen=True, slots=True)
class TaskRun:
    """folder: the task's own, with what it left there."""

    plan: Plan
    outcome: Outcome
    folder: Path

    @property
    def version(self) -> str:
        """The label that it registered."""
        assert self.outcome.version is not None
        return self.outcome.version


def planned(home: Path, kind: JobKind, params: Mapping[str, Any], grants: Grants = EVERYTHING) -> Plan:
    """Raises InvalidJob as the queue does, and what the task raises."""
    with task_context(home, job="plan") as context:
        return task_for(kind).plan(_validated(kind, params), replace(context, grants=grants))


def run_task(home: Path, kind: JobKind, params: Mapping[str, Any], grants: Grants = EVERYTHING) -> TaskRun:
    """Plans and runs a job with a new id. Raises as `planned`."""
    job, requested = _next_job(home), _validated(kind, params)
    with environment_kept(), task_context(home, job=job) as context:
        context = replace(context, grants=grants)
        plan, stages = task_for(kind).plan(requested, context), task_for(kind).stages(requested, context)
        found = TaskRun(plan, task_for(kind).run(requested, context), context.folder)
        assert isinstance(context.reporter, RecordingReporter)
        places = [stages.index(stage) for stage in context.reporter.stages if stage in stages]
        assert places == sorted(places), "stages come in the order that was declared"
        return found


def interrupted_run(home: Path, kind: JobKind, params: Mapping[str, Any]) -> TaskRun:
    """A job that is paused at its first checkpoint, then resumed."""
    job, requested = _next_job(home), _validated(kind, params)
    with environment_kept(), task_context(home, job=job) as context:
        context = replace(context, grants=EVERYTHING)
        plan = task_for(kind).plan(requested, context)
        with pytest.raises(Stopped):
            task_for(kind).run(requested, replace(context, reporter=PausedAtCheckpoint()))
        return TaskRun(plan, task_for(kind).run(requested, replace(context, attempt=2)), context.folder)


class PausedAtCheckpoint(RecordingReporter):
    """Asks its task to pause once it has left a checkpoint."""

    def checkpoint(self, step: int, path: Path, metrics: Mapping[str, float]) -> None:
        self.stop = StopReason.PAUSE


@contextmanager
def environment_kept() -> Iterator[None]:
    """Training and conversions go offline, as they may in a process of their own."""
    before, is_offline = dict(os.environ), huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        huggingface_hub.constants.HF_HUB_OFFLINE = is_offline


def _next_job(home: Path) -> str:
    return f"job-{sum(1 for _ in (home / 'work').glob('job-*')) + 1}"


def _validated(kind: JobKind, params: Mapping[str, Any]) -> Any:
    try:
        return task_for(kind).params.model_validate(params)
    except ValidationError as error:
        raise InvalidJob(problems_of(error, task_for(kind).params)) from None
