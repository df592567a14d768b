"""The kinds of jobs as the daemon knows them: their params checked, described, and searched for what they refer to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

from pydantic import ValidationError

from jobs.fields import Reference
from jobs.param_errors import problems_of
from jobs.task import InvalidJob, JobKind, Task


class TaskModule(Protocol):
    """A module that knows the tasks of all kinds. The composition root names it; a job's process imports it by its name."""

    def task_for(self, kind: JobKind) -> Task:
        """The one task of this kind."""

    def prepare_process(self) -> None:
        """Called once in a job's process, before anything is loaded that tasks work with."""


def task_module(name: str) -> TaskModule:
    return cast(TaskModule, import_module(name))


class Kinds:
    """module: the name of a `TaskModule`. A kind's task is imported on first use, in a thread, which takes a while."""

    def __init__(self, module: str) -> None:
        self.module = module

    async def task(self, kind: JobKind) -> Task:
        return await asyncio.to_thread(lambda: task_module(self.module).task_for(kind))

    async def check(self, kind: JobKind, params: Mapping[str, Any]) -> None:
        """Validates the params by themselves, before anything they refer to is looked at. Raises InvalidJob."""
        known = (await self.task(kind)).params
        try:
            known.model_validate(params)
        except ValidationError as error:
            raise InvalidJob(problems_of(error, known, str(kind))) from None

    async def schema(self, kind: JobKind) -> dict[str, Any]:
        """The JSON Schema of the kind's params."""
        schema: dict[str, Any] = (await self.task(kind)).params.model_json_schema()
        return schema

    async def references(self, kind: JobKind, params: Mapping[str, Any]) -> tuple[Reference, ...]:
        """Everything that such a job refers to: files, folders, servers, versions, other jobs."""
        return (await self.task(kind)).params.references(params)
