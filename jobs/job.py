"""A job as a frozen value: what was requested, how far it is, how it ended. Knows no database and no process.

Error tree: JobError
├── InvalidJob       refused before it starts: every problem, with its file and line (`jobs.task`)
├── JobNotFound      no job has this id
├── WrongStatus      the job's status does not allow this
├── JobsElsewhere    another process runs the jobs of this home
├── TooManyPlans     as many plans as may be are being made; it may be tried again
├── QueueClosing     the daemon is ending
└── JobFailure       the work failed: with a cause, a remedy, and whether trying again may help (`jobs.task`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from jobs.task import JobError, JobKind, Outcome, Plan

WORK = "work"  # in a job's folder, the one that its task writes in
STEP, STEP_NUMBER, NUM_STEPS = "step", "step_number", "num_steps"  # keys of the metadata of a pipeline's jobs


def step_name(number: int, name: str, kind: str) -> str:
    """`step 2 'small' (quantize)`. number: from 1; 0 where it is not known."""
    return f"step {number} {name!r} ({kind})" if number else f"step {name!r} ({kind})"


class JobStatus(StrEnum):
    """The state of a job. `lifecycle` defines the possible transitions."""

    QUEUED = "queued"  # waits for its turn, or for the jobs that it needs
    RUNNING = "running"  # has a process
    PAUSED = "paused"  # stopped by its owner; resumes from its last checkpoint
    INTERRUPTED = "interrupted"  # its process or the daemon ended, or it waits for a retry; is queued again automatically
    SUCCEEDED = "succeeded"  # did all of its work
    FAILED = "failed"  # will not be retried automatically
    CANCELLED = "cancelled"  # ended by its owner

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed. code: for programs, e.g. `out_of_memory`; message: the cause and what to do, for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. step of total, counted in `unit`; total is None while unknown. rate: steps a second, lately.

    stage_number of num_stages: which of its stages is going on, from 1; None where they are not known before.
    metrics: the newest value of each, e.g. {"loss": 1.9, "learning_rate": 2e-5}.
    """

    stage: str = ""
    step: int = 0
    total: int | None = None
    unit: str = "steps"
    rate: float | None = None
    time_left_s: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    stage_number: int | None = None
    num_stages: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One job. params: JSON as requested, `@id` standing for the version that another job makes. needs: ids of those jobs.

    attempt: how often it was started. metadata: the owner's own texts. Times are UTC. owner: id of the principal that created
    it; None when that was before there were keys.
    """

    id: str
    kind: JobKind
    params: Mapping[str, Any]
    status: JobStatus
    created_at: datetime
    needs: tuple[str, ...] = ()
    pipeline: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None
    progress: Progress = Progress()
    plan: Plan | None = None
    outcome: Outcome | None = None
    failure: Failure | None = None
    owner: str | None = None

    @property
    def step(self) -> str:
        """Which step of a pipeline it is, as messages name it; empty for a job by itself."""
        if self.pipeline is None or STEP not in self.metadata:
            return ""
        return step_name(int(self.metadata.get(STEP_NUMBER, "0")), self.metadata[STEP], self.kind)


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job. number: from 1, ascending within the job.

    type: status, stage, progress, message or checkpoint. message: for people. data: JSON, e.g. a progress with its metrics,
    or a checkpoint's step and path.
    """

    job: str
    number: int
    at: datetime
    type: str
    level: str = "info"
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)


class JobNotFound(JobError):
    pass


def no_job(id_: str) -> JobNotFound:
    return JobNotFound(f"There is no job {id_!r} here. `slmops jobs list` shows all.")


class WrongStatus(JobError):
    pass


class JobsElsewhere(JobError):
    pass


class TooManyPlans(JobError):
    pass


class QueueClosing(JobError):
    def __init__(self) -> None:
        super().__init__("The server is shutting down; no job is planned any more. Retry after its restart.")
