"""What a task is: the contract between a job's process and the work of one kind.

A task's module loads fast: it imports training libraries inside functions only, because the gateway reads `params` from it.
A task's files are in `context.folder`, which outlives its process: a task that is started again finds its
checkpoints there, and ends with the same result as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from pydantic import BaseModel, ConfigDict, model_validator

from jobs.choices import meant, spelt, suggestion
from jobs.fields import Declared, Reference, declared_fields, references
from jobs.permissions import Grants

if TYPE_CHECKING:  # it imports the database, which the command line does without
    from model_registry.evaluations import EvaluationStore
    from model_registry.registry import Registry

MAX_MESSAGE_CHARS = 4096  # of one problem
MAX_SHOWN = 5  # problems in a message
PLANNED = "planned"  # in a task's folder: what its plan left for its run


class JobKind(StrEnum):
    """The kinds of work; each has a file or a folder in `jobs/tasks/`."""

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
    PULL = "pull"

    @classmethod
    def named(cls, text: str) -> Self:
        """The kind that is spelt so, in any case, with or without dashes. Raises ValueError, which lists the kinds."""
        if (found := meant(text, cls)) is not None:
            return cls(found)
        hint = suggestion(text, cls) or f"; there are {', '.join(cls)}"
        raise ValueError(f"there is no kind {text!r}{hint}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a requested job. param: the field; file, line (from 1): where in its data; code: for programs."""

    message: str
    param: str | None = None
    file: str | None = None
    line: int | None = None
    code: str = "invalid_value"

    def __post_init__(self) -> None:
        """A message may quote what was given, which may be long."""
        if len(self.message) > MAX_MESSAGE_CHARS:
            object.__setattr__(self, "message", f"{self.message[:MAX_MESSAGE_CHARS]}...")

    def within(self, param: str) -> Problem:
        """Of the params that another param holds, e.g. a search's."""
        begins_with_name = self.param is not None and self.message.startswith(f"{self.param}:")
        message = f"{param}.{self.message}" if begins_with_name else f"{param}: {self.message}"
        return replace(self, message=message, param=f"{param}.{self.param}" if self.param else param)

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job would do, reported before it starts. summary: a sentence each; duration and memory are estimates, None if unknown.

    outputs: names of models that it would register. warnings: what is allowed but probably not wanted.
    stages: as `Task.stages` has them. disk_bytes: on the way, downloads included; download_bytes: what is fetched, None if unknown.
    """

    summary: tuple[str, ...]
    num_steps: int | None = None
    duration_s: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    outputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    download_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job made. version: the label (`name:number`) of what it registered; files: in its folder, relative, e.g. reports.

    metrics: its figures. details: JSON values for people and programs that want more.
    """

    version: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


class JobError(Exception):
    """The root. message: what was wrong and what to do, in full sentences."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidJob(JobError):
    """Refused before it starts. problems: at least one, of which the first hundred are kept; param, code: of the first.

    The message has a line for each of the first five.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:100])
        self.param, self.code = self.problems[0].param, self.problems[0].code
        more = len(problems) - MAX_SHOWN
        shown = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        super().__init__("\n".join([*shown, f"and {more} more"] if more > 0 else shown))


class JobFailure(JobError):
    """The work failed. code: e.g. `out_of_memory`, `source_unavailable`; retryable: whether another attempt can help."""

    def __init__(self, message: str, *, code: str = "failed", retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


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
    """What is requested of a task. Each task has its own subclass; unknown fields are refused, descriptions name the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def declared(cls, params: Any) -> Declared:
        """Where params of this kind, valid or not, have texts in fields that name something (`jobs.fields`)."""
        return declared_fields(cls, params)

    @classmethod
    def references(cls, params: Any) -> tuple[Reference, ...]:
        """Everything that params of this kind refer to: files, folders, servers, versions, other jobs."""
        return tuple(references(cls.declared(params), params))

    @model_validator(mode="before")
    @classmethod
    def _spelt(cls, params: Any) -> Any:
        """Choices may be spelt in any case: `LoRA` is `lora`."""
        return spelt(cls, params)


class Reporter(Protocol):
    """Where a task reports how far it is. May be called often: reports are thinned on their way."""

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

    threads: to compute with. memory_bytes: what it may take, None if unlimited. offline: nothing may be fetched. grants: what the
    machine's configuration allows it. shared: of a search's trial, the folder of the search.
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
    shared: Path | None = None

    @property
    def evaluations(self) -> EvaluationStore:
        """Beside the models, in the same database."""
        from model_registry.evaluations import EvaluationStore

        return EvaluationStore(self.registry.database)

    @property
    def planned(self) -> Path:
        """Where `plan` may leave what `run` need not do again: in the job's folder, which trials of a search share."""
        return (self.shared or self.folder) / PLANNED

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

    def stages(self, params: Any, context: TaskContext) -> tuple[str, ...]:
        """What `run` goes through, in order, by the names that it gives its stages; parts of these have other names.

        Empty where that is not known before. Raises as `plan` does.
        """

    def run(self, params: Any, context: TaskContext) -> Outcome:
        """Does it. Raises JobFailure, RegistryError, Stopped, InvalidJob. Anything else is a defect, and reported as such."""
