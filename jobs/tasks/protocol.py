"""What a task is: the contract between a job's process and the work of one kind.

A task's module loads fast: it imports training libraries inside functions only, because the gateway reads `params` from it.
Whatever a task writes lies in `context.folder`, which outlives its process: a task that is started again finds its
checkpoints there, and ends with the same result as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from jobs.job import JobKind, Outcome, Plan, Problem
from jobs.permissions import Grants
from jobs.places import Placed, placed_in
from model_registry.evaluations import EvaluationStore
from model_registry.registry import Registry


class StopReason(StrEnum):
    """Why a running task is to end early."""

    PAUSE = "pause"  # leave a checkpoint, then end
    CANCEL = "cancel"  # end at once


class Stopped(Exception):
    """The task is to end now. Raised by `TaskContext.check`; a task that catches it to save a checkpoint raises it again."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Params(BaseModel):
    """What a task is asked. Each task has its own subclass; unknown fields are refused, defaults are told in descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def placed(cls, params: Mapping[str, Any]) -> Iterator[Placed]:
        """The files, folders and endpoints that params of this kind name, by its fields' declarations (`jobs.places`)."""
        return placed_in(cls, params)


_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unsupported_parameter"}  # of kinds of validation errors


def problems_of(error: ValidationError, params: type[Params] | None = None) -> list[Problem]:
    """What is wrong with params, each with the dotted name of its field. params: whose fields are told to who misspelt one."""
    return [_problem(each, params) for each in error.errors(include_input=False, include_url=False)]


def _problem(error: ErrorDetails, params: type[Params] | None) -> Problem:
    name = ".".join(map(str, error["loc"])) or None
    said = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = f"; there are {', '.join(params.model_fields)}" if params is not None and len(error["loc"]) == 1 else ""
        said = f"there is no such param{known}"
    code = _CODES.get(error["type"], "invalid_value")
    return Problem(f"{name}: {said[:1].lower()}{said[1:]}" if name else said, param=name, code=code)


class Reporter(Protocol):
    """Whom a task tells how far it is. May be called often: reports are thinned on their way."""

    def stage(self, name: str) -> None:
        """What is done from now on, e.g. `loading the model`."""

    def progress(self, step: int, total: int | None, metrics: Mapping[str, float], unit: str) -> None:
        """step: done so far, from any checkpoint on; total: None while unknown. metrics: e.g. loss, learning_rate."""

    def message(self, text: str, level: str = "info") -> None:
        """One event for people. Never data's content."""

    def checkpoint(self, step: int, path: Path, metrics: Mapping[str, float]) -> None:
        """A checkpoint that this job can go on from is now whole on disk."""

    @property
    def stop(self) -> StopReason | None:
        """Whether the task is to end, and why."""


@dataclass(frozen=True, slots=True)
class TaskContext:
    """What a task works with. job: its id; attempt: from 1; folder: its own, kept between attempts.

    threads: to compute with. memory_bytes: what it may take, None if unlimited. offline: nothing may be fetched.
    grants: what the machine's configuration allows it.
    """

    job: str
    registry: Registry
    folder: Path
    reporter: Reporter
    attempt: int = 1
    threads: int = 2
    memory_bytes: int | None = None
    offline: bool = False
    grants: Grants = field(default_factory=Grants)

    @property
    def evaluations(self) -> EvaluationStore:
        """Beside the models, in the same database."""
        return EvaluationStore(self.registry.database)

    def check(self) -> None:
        """Raises Stopped when the job is paused or cancelled. A task calls it at least twice a second where it can stop."""
        if self.reporter.stop is not None:
            raise Stopped(self.reporter.stop)

    def stage(self, name: str) -> None:
        self.check()
        self.reporter.stage(name)

    def progress(self, step: int, total: int | None = None, *, unit: str = "steps", **metrics: float) -> None:
        self.check()
        self.reporter.progress(step, total, metrics, unit)


class Task(Protocol):
    """One kind of work. Stateless."""

    kind: ClassVar[JobKind]
    params: ClassVar[type[Params]]

    def plan(self, params: Any, context: TaskContext) -> Plan:
        """What `run` would do, in seconds and without training libraries. Raises InvalidJob with every problem, RegistryError."""

    def run(self, params: Any, context: TaskContext) -> Outcome:
        """Does it. Raises JobFailure, RegistryError, Stopped, InvalidJob. Anything else is a defect, and told as such."""
