"""Which job starts next, and which can never start. Pure: jobs in, a decision out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jobs.job import Failure, Job, JobStatus


@dataclass(frozen=True, slots=True)
class Dispatch:
    """start: the ids of jobs to start now, oldest first. doomed: what the jobs that will never start fail with, by id."""

    start: tuple[str, ...]
    doomed: Mapping[str, Failure]


def plan_dispatch(jobs: Collection[Job], needed: Mapping[str, JobStatus], max_running: int) -> Dispatch:
    """jobs: all that have not ended. needed: the status of every job that one of them needs, by id; absent: it is gone.

    1. A job whose need failed, was cancelled or is gone is doomed.
    2. Of those whose needs all succeeded, the oldest start, until max_running run.
    """
    waiting = sorted((job for job in jobs if job.status is JobStatus.QUEUED), key=lambda job: (job.created_at, job.id))
    doomed = {job.id: failure for job in waiting if (failure := _doom(job, needed)) is not None}
    num_free = max_running - sum(job.status is JobStatus.RUNNING for job in jobs)
    ready = [
        job.id for job in waiting if job.id not in doomed and all(needed.get(need) is JobStatus.SUCCEEDED for need in job.needs)
    ]
    return Dispatch(tuple(ready[: max(0, num_free)]), doomed)


def _doom(job: Job, needed: Mapping[str, JobStatus]) -> Failure | None:
    for need in job.needs:
        status = needed.get(need)
        if status in (JobStatus.FAILED, JobStatus.CANCELLED):
            return Failure("need_failed", f"It needs the job {need}, which {_ended(status)}. Mend that, and create both anew.")
        if status is None:
            return Failure("need_gone", f"It needs the job {need}, which was deleted. Create it anew without that need.")
    return None


def _ended(status: JobStatus) -> str:
    return "failed" if status is JobStatus.FAILED else "was cancelled"
