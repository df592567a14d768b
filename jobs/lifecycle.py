"""The life of a job, decided purely: which moves are possible, which job starts, and what the end of its process means.

`move` is the one place that makes a move, `plan_dispatch` says which jobs start now and which never can, and `judge` says what
follows when a process has ended. Values in, decisions out.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from jobs.job import Failure, Job, JobStatus, WrongStatus
from jobs.messages import Ended, Failed, Finished, Refused, TerminalMessage
from jobs.task import InvalidJob, JobKind, Outcome, StopReason

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

    A start counts an attempt and forgets the failure before it; a final status has its time, and its outcome or failure, which
    names the step of a pipeline.
    """
    if not can_move(job, to):
        raise WrongStatus(f"The job {job.id} is {job.status}, so it cannot become {to}. {_advice(job.status)}")
    if to is JobStatus.RUNNING:
        return replace(job, status=to, attempt=job.attempt + 1, started_at=job.started_at or at, failure=None)
    if failure is not None and job.step:
        failure = replace(failure, message=f"{job.step}: {failure.message}")
    return replace(job, status=to, ended_at=at if to.is_final else None, outcome=outcome, failure=failure)


def _advice(status: JobStatus) -> str:
    if status.is_final:
        return "It has ended: create a new job."
    return "Wait until it runs, or cancel it." if status is not JobStatus.RUNNING else "Pause or cancel it first."


@dataclass(frozen=True, slots=True)
class Dispatch:
    """start: ids of the jobs to start now, oldest first. unrunnable: how the jobs that can never start end, and why, by id."""

    start: tuple[str, ...]
    unrunnable: Mapping[str, tuple[JobStatus, Failure]]


class Lane(StrEnum):
    """Jobs of one lane wait for each other, never for those of another."""

    WORK = "work"  # computes: trains, converts, measures
    PULL = "pull"  # mostly waits for the network


MAX_PULLS = 2  # that run at a time


def lane_of(job: Job) -> Lane:
    return Lane.PULL if job.kind is JobKind.PULL else Lane.WORK


def plan_dispatch(jobs: Collection[Job], needed: Mapping[str, JobStatus], max_running: int, max_pulls: int = MAX_PULLS) -> Dispatch:
    """jobs: all that have not ended. needed: the status of every job that one of them needs, by id; absent: it is gone.

    1. A job whose need failed or is gone fails, one whose need was cancelled is cancelled with it.
    2. Of those whose needs all succeeded, the oldest of each lane start, until max_running of its work or max_pulls run.
    """
    waiting = sorted((job for job in jobs if job.status is JobStatus.QUEUED), key=lambda job: (job.created_at, job.id))
    unrunnable = {job.id: why for job in waiting if (why := _why_unrunnable(job, needed)) is not None}
    num_running = Counter(lane_of(job) for job in jobs if job.status is JobStatus.RUNNING)
    start: list[str] = []
    for job in waiting:
        lane = lane_of(job)
        is_ready = job.id not in unrunnable and all(needed.get(need) is JobStatus.SUCCEEDED for need in job.needs)
        if is_ready and num_running[lane] < (max_pulls if lane is Lane.PULL else max_running):
            num_running[lane] += 1
            start.append(job.id)
    return Dispatch(tuple(start), unrunnable)


def _why_unrunnable(job: Job, needed: Mapping[str, JobStatus]) -> tuple[JobStatus, Failure] | None:
    statuses = {need: needed.get(need) for need in job.needs}
    for need, status in statuses.items():
        if status is JobStatus.FAILED:
            return status, Failure("need_failed", f"It needs the job {need}, which failed. Fix it, then recreate both jobs.")
        if status is None:
            message = f"It needs the job {need}, which was deleted. Recreate it without that need."
            return JobStatus.FAILED, Failure("need_gone", message)
    for need, status in statuses.items():
        if status is JobStatus.CANCELLED:
            return status, Failure("need_cancelled", f"It needs the job {need}, which was cancelled. Recreate both jobs.")
    return None


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """last: the terminal message of the attempt's process, None if it died without one. exit_code: negative for a signal."""

    last: TerminalMessage | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """to: where the job moves. INTERRUPTED: it is to be tried again."""

    to: JobStatus
    outcome: Outcome | None = None
    failure: Failure | None = None


def judge(end: AttemptEnd, stop_reason: StopReason | None, num_failures: int, max_attempts: int, is_closing: bool) -> Verdict:
    """stop_reason: why its end was requested, if it was. num_failures: attempts before it that failed, without a checkpoint since.

    1. Finished work is finished, whatever was requested meanwhile.
    2. What was requested to end has ended: cancelled, paused, or interrupted when the daemon ends.
    3. What cannot pass has failed.
    4. What may pass, and a process that was killed, is tried again until max_attempts.
    """
    match end.last:
        case Finished(outcome=outcome):
            return Verdict(JobStatus.SUCCEEDED, outcome=outcome)
        case _ if stop_reason is StopReason.CANCEL:
            return Verdict(JobStatus.CANCELLED)
        case _ if stop_reason is StopReason.PAUSE and (isinstance(end.last, Ended) or end.last is None):
            return Verdict(JobStatus.INTERRUPTED if is_closing else JobStatus.PAUSED)
        case Refused(problems=problems):
            return Verdict(JobStatus.FAILED, failure=Failure("invalid_job", InvalidJob(problems).message))
        case Failed(code=code, message=message, retryable=retryable):
            failure, retryable = Failure(code, message), retryable
        case _:
            failure, retryable = Failure("process_ended", describe_exit(end.exit_code)), end.exit_code < 0
    may_retry = retryable and num_failures + 1 < max_attempts
    return Verdict(JobStatus.INTERRUPTED if may_retry else JobStatus.FAILED, failure=failure)


def describe_exit(exit_code: int) -> str:
    if exit_code >= 0:
        return f"The job's process ended with exit code {exit_code}; the job's log has the details."
    name = signal.Signals(-exit_code).name
    hint = " If this machine ran out of memory, lower batch_size or max_length." if -exit_code == signal.SIGKILL else ""
    return f"The job's process was ended by {name}.{hint}"
