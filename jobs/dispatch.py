"""Which job starts next, and which can never start. Pure: jobs in, a decision out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jobs.job import Failure, Job, JobStatus


@dataclass(frozen=True, slots=True)
class Dispatch:
    """start: the ids of jobs to start now, oldest first. doomed: how the jobs that will never start end, and why, by id."""

    start: tuple[str, ...]
    doomed: Mapping[str, tuple[JobStatus, Failure]]


def plan_dispatch(jobs: Collection[Job], needed: Mapping[str, JobStatus], max_running: int) -> Dispatch:
    """jobs: all that have not ended. needed: the status of every job that one of them needs, by id; absent: it is gone.

    1. A job whose need failed or is gone is doomed to fail, one whose need was cancelled is cancelled with it.
    2. Of those whose needs all succeeded, the oldest start, until max_running run.
    """
    waiting = sorted((job for job in jobs if job.status is JobStatus.QUEUED), key=lambda job: (job.created_at, job.id))
    doomed = {job.id: doom for job in waiting if (doom := _doom(job, needed)) is not None}
    num_free = max_running - sum(job.status is JobStatus.RUNNING for job in jobs)
    ready = [
        job.id for job in waiting if job.id not in doomed and all(needed.get(need) is JobStatus.SUCCEEDED for need in job.needs)
    ]
    return Dispatch(tuple(ready[: max(0, num_free)]), doomed)


def _doom(job: Job, needed: Mapping[str, JobStatus]) -> tuple[JobStatus, Failure] | None:
    statuses = {need: needed.get(need) for need in job.needs}
    for need, status in statuses.items():
        if status is JobStatus.FAILED:
            return status, Failure("need_failed", f"It needs the job {need}, which failed. Mend that, and create both anew.")
        if status is None:
            message = f"It needs the job {need}, which was deleted. Create it anew without that need."
            return JobStatus.FAILED, Failure("need_gone", message)
    for need, status in statuses.items():
        if status is JobStatus.CANCELLED:
            return status, Failure("need_cancelled", f"It needs the job {need}, which was cancelled. Create both anew.")
    return None
