"""A job as a frozen value: what is asked, how far it is, how it ended. Knows no database, process or task.

Error tree: JobError
├── InvalidJob       refused before it starts: every problem, with its file and line
├── JobNotFound      no job has this id
├── WrongStatus      the job's status does not allow this
├── JobsElsewhere    another process runs the jobs of this home
├── TooManyPlans     as many plans as may be are being made; it may be tried again
├── QueueClosing     the daemon is ending
└── JobFailure       the work failed: with a cause, a remedy, and whether trying again may help
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

WORK = "work"  # in a job's folder, the one that its task writes in
MAX_MESSAGE_CHARS = 4096  # of one problem


class JobKind(StrEnum):
    """The kinds of work; each has its file in `jobs/tasks/`."""

    CONVERT = "convert"
    MERGE = "merge"
    QUANTIZE = "quantize"
    FINETUNE = "finetune"
    DISTIL = "distil"
    EVALUATE = "evaluate"
    BENCHMARK = "benchmark"
    SEARCH = "search"
    FOUNDRY_EXPORT = "foundry-export"
    REGISTER = "register"
    OLIVE = "olive"


class JobStatus(StrEnum):
    """Where a job is in its life. `lifecycle` says which moves are possible."""

    QUEUED = "queued"  # waits for its turn, or for the jobs that it needs
    RUNNING = "running"  # has a process
    PAUSED = "paused"  # stopped by its owner; resumes from its last checkpoint
    INTERRUPTED = "interrupted"  # its process or the daemon ended, or it waits for a retry; is queued again by itself
    SUCCEEDED = "succeeded"  # did all of its work
    FAILED = "failed"  # will not be tried again by itself
    CANCELLED = "cancelled"  # ended by its owner

    @property
    def is_final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what a job was asked. param: the field; file, line (from 1): where in its data; code: for programs."""

    message: str
    param: str | None = None
    file: str | None = None
    line: int | None = None
    code: str = "invalid_value"

    def __post_init__(self) -> None:
        """A message may quote what was given, which may be long."""
        if len(self.message) > MAX_MESSAGE_CHARS:
            object.__setattr__(self, "message", f"{self.message[:MAX_MESSAGE_CHARS]}...")

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed. code: for programs, e.g. `out_of_memory`; message: the cause and what to do, for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. step of total, counted in `unit`; total is None while unknown. rate: steps a second, lately.

    metrics: the newest value of each, e.g. {"loss": 1.9, "learning_rate": 2e-5}.
    """

    stage: str = ""
    step: int = 0
    total: int | None = None
    unit: str = "steps"
    rate: float | None = None
    time_left_s: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do, told before it starts. summary: a sentence each; duration and memory are estimates, None if unknown.

    outputs: names of models that it would register. warnings: what is allowed but probably not wanted.
    """

    summary: tuple[str, ...]
    num_steps: int | None = None
    duration_s: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job made. version: the label (`name:number`) of what it registered; files: in its folder, relative, e.g. reports.

    metrics: its figures. details: JSON values for people and programs that want more.
    """

    version: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Job:
    """One job. params: JSON as asked, `@id` standing for the version that another job makes. needs: ids of those jobs.

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


class JobError(Exception):
    """The root. message: what was wrong and what to do, in full sentences."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidJob(JobError):
    """Refused before it starts. problems: at least one, of which the first hundred are kept; param, code: of the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:100])
        self.param, self.code = self.problems[0].param, self.problems[0].code
        shown = "; ".join(str(problem) for problem in self.problems[:5])
        more = len(problems) - 5
        super().__init__(f"{shown}; and {more} more" if more > 0 else shown)


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


class JobFailure(JobError):
    """The work failed. code: e.g. `out_of_memory`, `source_unavailable`; may_pass: whether another attempt can help."""

    def __init__(self, message: str, *, code: str = "failed", may_pass: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.may_pass = may_pass
