"""The life of a job: which moves are possible, and the one place that makes them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from jobs.job import Failure, Job, JobStatus, Outcome, WrongStatus

_MOVES: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.PAUSED, JobStatus.CANCELLED, JobStatus.FAILED}),
    JobStatus.RUNNING: frozenset(
        {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PAUSED, JobStatus.INTERRUPTED}
    ),
    JobStatus.PAUSED: frozenset({JobStatus.QUEUED, JobStatus.CANCELLED}),
    JobStatus.INTERRUPTED: frozenset({JobStatus.QUEUED, JobStatus.PAUSED, JobStatus.CANCELLED}),
}


def can_move(job: Job, to: JobStatus) -> bool:
    return to in _MOVES.get(job.status, frozenset())


def move(job: Job, to: JobStatus, at: datetime, *, outcome: Outcome | None = None, failure: Failure | None = None) -> Job:
    """The job after the move. Raises WrongStatus for an impossible one.

    A start counts an attempt and forgets the failure before it; a final status has its time, and its outcome or failure.
    """
    if not can_move(job, to):
        raise WrongStatus(f"The job {job.id} is {job.status}, so it cannot become {to}. {_advice(job.status)}")
    if to is JobStatus.RUNNING:
        return replace(job, status=to, attempt=job.attempt + 1, started_at=job.started_at or at, failure=None)
    return replace(job, status=to, ended_at=at if to.is_final else None, outcome=outcome, failure=failure)


def _advice(status: JobStatus) -> str:
    if status.is_final:
        return "It has ended: create a new job."
    return "Wait until it runs, or cancel it." if status is not JobStatus.RUNNING else "Pause or cancel it first."
