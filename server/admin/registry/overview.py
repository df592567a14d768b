"""`/admin/registry`: where the models of this daemon are, how many there are, and the removal of what nothing refers to."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from fastapi import APIRouter
from pydantic import BaseModel

from server.dialects.openai.wire.errors import documented
from server.http.access import GuardedRoute, requires
from server.principal import AccessScope
from server.storage.snapshots import RegistryAccess


class RegistryBody(BaseModel):
    """home: the folder on the daemon's machine. why_read_only: why nothing can be changed, null where it can.

    size_bytes: of all versions, a file that several share counted once. free_bytes: on the disk of the home; null when unknown.
    """

    home: str
    why_read_only: str | None
    num_models: int
    num_versions: int
    size_bytes: int
    free_bytes: int | None


class Collected(BaseModel):
    freed_bytes: int


def overview_router(registry: RegistryAccess) -> APIRouter:
    router = APIRouter(prefix="/admin/registry", tags=["registry"], route_class=GuardedRoute)

    @router.get("", responses=documented(500, 503), summary="Show where the models are kept, and how much space they take")
    @requires(AccessScope.READ, changes_state=False)
    async def overview() -> RegistryBody:
        await registry.refresh()
        models = registry.snapshot.models.values()
        versions = [version for model in models for version in model.versions]
        files = {each.sha256: each.size_bytes for version in versions for variant in version.variants for each in variant.artifacts}
        return RegistryBody(
            home=str(registry.home.absolute()),
            why_read_only=registry.why_read_only,
            num_models=len(models),
            num_versions=len(versions),
            size_bytes=sum(files.values()),
            free_bytes=await asyncio.to_thread(free_bytes, registry.home),
        )

    @router.post("/gc", responses=documented(500, 503, 507), summary="Remove files that no version refers to")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def collect_garbage() -> Collected:
        """Files of versions that are gone, what interrupted work left, and downloads that nobody resumed for a week."""
        return Collected(freed_bytes=await registry.collect_garbage())

    return router


def free_bytes(home: Path) -> int | None:
    """On the disk where the home is, or will be. Waits for the disk. None when the system does not say."""
    there = next((folder for folder in (home.absolute(), *home.absolute().parents) if folder.is_dir()), None)
    try:
        return None if there is None else shutil.disk_usage(there).free
    except OSError:
        return None
