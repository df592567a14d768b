"""`/admin/registry/models/{name}/versions`: the versions of a model: shown, verified, removed, and what they were made from."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from model_registry.description import VersionDescription, describe_version
from model_registry.lineage import lineage_of
from model_registry.names import Label, parse_label
from model_registry.records import ModelVersion
from model_registry.verification import Problem, problems_of
from server.admin.evaluations import LineageBody, lineage_body
from server.admin.registry.models import Force
from server.admin.registry.removal import Removal, RemovedBody
from server.dialects.openai.wire.errors import documented
from server.http.access import GuardedRoute, requires
from server.http.disconnection import unless_disconnected
from server.inference.fine_tuned_names import as_registered
from server.principal import AccessScope
from server.storage.snapshots import RegistryAccess

MAX_VERIFYING = 2  # versions that are read at a time; others wait


class VersionList(BaseModel):
    """By number."""

    object: Literal["list"] = "list"
    data: list[VersionDescription]


class ProblemBody(BaseModel):
    """path: `<variant>/<path>` of a file that is missing, changed or surplus."""

    path: str
    message: str


class Verified(BaseModel):
    """version: `name:number`. problems: none when every file is as it was published."""

    version: str
    problems: list[ProblemBody]


def versions_router(registry: RegistryAccess, removal: Removal) -> APIRouter:
    router = APIRouter(prefix="/admin/registry/models/{name}/versions", tags=["registry"], route_class=GuardedRoute)
    verifying = asyncio.Semaphore(MAX_VERIFYING)

    async def found(name: str, version: str) -> ModelVersion:
        await registry.refresh()
        return registry.snapshot.version_of(version_label(name, version))

    @router.get("", responses=documented(404, 500, 503), summary="List the versions of a model")
    @requires(AccessScope.READ, changes_state=False)
    async def list_versions(name: str) -> VersionList:
        await registry.refresh()
        return VersionList(data=[describe_version(each) for each in registry.snapshot.model(as_registered(name)).versions])

    @router.get("/{version}", responses=documented(404, 500, 503), summary="Show a version by its number or an alias")
    @requires(AccessScope.READ, changes_state=False)
    async def show(name: str, version: str) -> VersionDescription:
        return describe_version(await found(name, version))

    @router.delete("/{version}", responses=documented(400, 404, 409, 500, 503, 507), summary="Remove a version")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def remove(name: str, version: str, force: Force = False) -> RemovedBody:
        """Refused while it is loaded, a job works with it, or an alias points to it."""
        return await removal.remove(version_label(name, version), force=force)

    @router.post("/{version}/verify", responses=documented(404, 500, 503), summary="Check the files of a version")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def verify(name: str, version: str, request: Request) -> Verified:
        """Reads every file and compares its hash with what was published; a gigabyte takes seconds. Ends with its request."""
        checked = await found(name, version)
        async with verifying:
            problems = await unless_disconnected(request.receive, _problems_of(checked))
        listed = [ProblemBody(path=problem.path, message=problem.message) for problem in problems]
        return Verified(version=checked.label, problems=listed)

    @router.get("/{version}/lineage", responses=documented(404, 500, 503), summary="Show what a version was made from")
    @requires(AccessScope.READ, changes_state=False)
    async def lineage(name: str, version: str) -> LineageBody:
        """The whole tree that it stands in, from its first ancestor that is still registered."""
        shown = await found(name, version)
        return lineage_body(lineage_of(registry.snapshot.models.values(), shown), shown.label)

    return router


def version_label(name: str, version: str) -> Label:
    """version: a number or an alias."""
    return replace(parse_label(f":{version}"), name=as_registered(name))


class _Cancelled(Exception):
    """Nobody waits for the result any more."""


async def _problems_of(version: ModelVersion) -> tuple[Problem, ...]:
    """Hashes in a thread, which ends soon after this is cancelled."""
    is_over = threading.Event()

    def seen(num_bytes: int) -> None:
        if is_over.is_set():
            raise _Cancelled

    try:
        return await asyncio.to_thread(problems_of, version, seen=seen)
    finally:
        is_over.set()
