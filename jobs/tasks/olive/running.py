"""Runs a workflow: Olive's log goes to the job's, its passes become stages, its failures ours. Registers nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jobs.job import JobFailure
from jobs.task import Stopped, TaskContext
from jobs.tasks.olive.workflow import pass_types

_PASS = "Running pass %s:%s"  # noqa: S105 (Olive's words for it, no secret)
_EVALUATION = ("Run model evaluation", "Evaluating")


class Follower(logging.Handler):
    """Hears Olive. last_error: what it said last of a failure, which it may not raise."""

    def __init__(self, context: TaskContext, num_passes: int) -> None:
        super().__init__(logging.INFO)
        self._context = context
        self._num_passes = num_passes
        self._num_begun = 0
        self.last_error: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == _PASS and isinstance(record.args, tuple):
            self._context.stage(f"pass {record.args[0]} ({record.args[1]})")
            total = self._num_passes if self._num_begun <= self._num_passes else None  # a search runs them again and again
            self._context.progress(self._num_begun, total, unit="passes")
            self._num_begun += 1
        elif str(record.msg).startswith(_EVALUATION):
            self._context.stage("evaluating")
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            self.last_error = f"{type(error).__name__}: {_first_line(error)}"


def run_workflow(olive: Any, workflow: Mapping[str, Any], context: TaskContext) -> Any:
    """Olive's WorkflowOutput, with at least one model. What is in the cache already is not made again.

    Raises JobFailure, Stopped.
    """
    with _followed(context, workflow) as follower:
        try:
            output = olive.run(dict(workflow))
        except (Stopped, MemoryError, ImportError):
            raise
        except Exception as error:
            context.check()
            raise _failure(f"{type(error).__name__}: {_first_line(error)}") from error
    context.check()  # Olive swallows what its log raises
    if not output.has_output_model():
        raise _failure(follower.last_error or "it says no reason")
    return output


@contextmanager
def _followed(context: TaskContext, workflow: Mapping[str, Any]) -> Iterator[Follower]:
    follower = Follower(context, sum(1 for _ in pass_types(workflow)))
    logger = logging.getLogger("olive")
    logger.addHandler(follower)
    try:
        yield follower
    finally:
        logger.removeHandler(follower)


def _failure(why: str) -> JobFailure:
    return JobFailure(f"Olive made no model ({why}). The job's log has what each pass said.", code="olive_failed")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason")
