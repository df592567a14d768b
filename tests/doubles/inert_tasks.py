"""A task that takes any param and does nothing, in a real process. Its job stays queued where none may run."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from jobs.fields import EndpointName, InputFile, OutputFolder
from jobs.task import JobKind, Outcome, Params, Plan, Task, TaskContext


class Nested(BaseModel):
    data: InputFile


class AnyParams(Params):
    """Whatever is given; `data`, `teacher` and `folder` name what such fields of real kinds name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    data: InputFile | None = None
    teacher: EndpointName | None = None
    folder: OutputFolder | None = None
    deep: tuple[Nested, ...] = ()


class Inert:
    kind: ClassVar[JobKind] = JobKind.FINETUNE
    params: ClassVar[type[Params]] = AnyParams

    def plan(self, params: Any, context: TaskContext) -> Plan:
        return Plan(("Does nothing.",))

    def stages(self, params: Any, context: TaskContext) -> tuple[str, ...]:
        return ()

    def run(self, params: Any, context: TaskContext) -> Outcome:
        return Outcome()


def task_for(kind: JobKind) -> Task:
    return Inert()


def prepare_process() -> None:
    pass
