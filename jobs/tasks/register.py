"""Task `register`: a version under a name and an alias, when it is good enough. The last step of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.fields import VersionName
from jobs.task import InvalidJob, JobFailure, JobKind, Outcome, Params, Plan, Problem, TaskContext
from jobs.tasks.outputs import source_of
from model_registry.artifacts import StagedVariant
from model_registry.errors import InvalidName
from model_registry.names import check_alias_name, check_model_name
from model_registry.records import LIVE, ModelVersion, VariantRole


class Bounds(BaseModel):
    """The bounds of a required figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max, or both")
        return self

    def __str__(self) -> str:
        return " and ".join(
            f"{word} {bound:g}" for word, bound in (("at least", self.min), ("at most", self.max)) if bound is not None
        )

    def hold(self, value: float) -> bool:
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


class RegisterParams(Params):
    """Points an alias to a version if its metrics meet the requirements."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "my-model", "alias": "live", "requires": {"f1": {"min": 0.6}}}]}
    )

    model: VersionName = Field(min_length=1, description="The version.")
    name: str | None = Field(None, description="Makes it a version of this model too; by default it is left where it is.")
    alias: str = Field(LIVE, description="What points to it then; live is what a bare name means.")
    requires: dict[str, Bounds] = Field(
        default_factory=dict,
        description="Figures that it must have, by their names: the newest of its evaluations and benchmarks, else its own.",
    )


class Register:
    """A version that is not good enough changes nothing. Run again, it finds what it did."""

    kind: ClassVar[JobKind] = JobKind.REGISTER
    params: ClassVar[type[Params]] = RegisterParams

    def plan(self, params: RegisterParams, context: TaskContext) -> Plan:
        _check_names(params)
        version = context.registry.resolve(params.model)
        if lacking := lacks(params.requires, _figures(version, context)):
            message = f"{version.label} would not be registered: {'; '.join(lacking)}."
            raise InvalidJob([Problem(message, param="requires", code="not_good_enough")])
        summary = [f"Looks whether {name} of {version.label} is {bounds}." for name, bounds in params.requires.items()]
        summary.append(f"Points {params.name or version.model}:{params.alias} to it.")
        return Plan(tuple(summary), outputs=(params.name,) if params.name else ())

    def stages(self, params: RegisterParams, context: TaskContext) -> tuple[str, ...]:
        return ("registering",)

    def run(self, params: RegisterParams, context: TaskContext) -> Outcome:
        _check_names(params)
        version = context.registry.resolve(params.model)
        figures = _figures(version, context)
        if lacking := lacks(params.requires, figures):
            raise JobFailure(f"{version.label} is not registered: {'; '.join(lacking)}.", code="not_good_enough")
        context.stage("registering")
        made = version if params.name in (None, version.model) else _published(version, str(params.name), params.alias, context)
        context.registry.set_alias(made.model, params.alias, made.number)
        return Outcome(made.label, {name: figures[name] for name in params.requires}, details={"alias": params.alias})


def lacks(requires: Mapping[str, Bounds], figures: Mapping[str, float]) -> list[str]:
    """One sentence for each figure that does not meet its requirement."""
    sentences = []
    for name, bounds in requires.items():
        if name not in figures:
            known = ", ".join(sorted(figures)) or "none"
            sentences.append(f"{name} was never measured of it; measured were {known}")
        elif not bounds.hold(figures[name]):
            sentences.append(f"{name} is {figures[name]:.4g}, and must be {bounds}")
    return sentences


def _figures(version: ModelVersion, context: TaskContext) -> dict[str, float]:
    """The newest of each name."""
    newest_last = reversed(context.evaluations.of(version.label))
    return dict(version.manifest.metrics) | {name: value for each in newest_last for name, value in each.metrics.items()}


def _published(version: ModelVersion, name: str, alias: str, context: TaskContext) -> ModelVersion:
    """The same files as a version of another model. Its adapter is left out: it only fits the version's parent."""
    manifest = replace(version.manifest, source=source_of(context.job), importer=str(JobKind.REGISTER), parent=version.label)
    variants = [StagedVariant.again(each) for each in version.variants if each.role is not VariantRole.ADAPTER]
    return context.registry.publish(name, manifest, variants, alias=alias)


def _check_names(params: RegisterParams) -> None:
    for field, check in (("name", check_model_name), ("alias", check_alias_name)):
        value = getattr(params, field)
        try:
            if value is not None:
                check(value)
        except InvalidName as error:
            raise InvalidJob([Problem(error.message, param=field)]) from None


TASK = Register()
