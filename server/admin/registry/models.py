"""`/admin/registry/models`: the models of the home, one of them, and its removal."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from model_registry.description import ModelDescription, describe_model
from model_registry.names import Label
from server.admin.registry.removal import Removal, RemovedBody
from server.dialects.openai.wire.errors import documented
from server.http.access import GuardedRoute, requires
from server.inference.fine_tuned_names import as_registered
from server.principal import AccessScope
from server.storage.snapshots import RegistryAccess

Force = Annotated[bool, Query(description="Also what is loaded or an alias points to.")]


class ModelList(BaseModel):
    """By name."""

    object: Literal["list"] = "list"
    data: list[ModelDescription]


def models_router(registry: RegistryAccess, removal: Removal) -> APIRouter:
    router = APIRouter(prefix="/admin/registry/models", tags=["registry"], route_class=GuardedRoute)

    @router.get("", responses=documented(500, 503), summary="List the models on this machine")
    @requires(AccessScope.READ, changes_state=False)
    async def list_models() -> ModelList:
        """With their versions, files and aliases, also while none of them is loaded."""
        await registry.refresh()
        return ModelList(data=[describe_model(model) for model in registry.snapshot.models.values()])

    @router.get("/{name}", responses=documented(404, 500, 503), summary="Show a model")
    @requires(AccessScope.READ, changes_state=False)
    async def show(name: str) -> ModelDescription:
        await registry.refresh()
        return describe_model(registry.snapshot.model(as_registered(name)))

    @router.delete("/{name}", responses=documented(400, 404, 409, 500, 503, 507), summary="Remove a model")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def remove(name: str, force: Force = False) -> RemovedBody:
        """All of its versions and aliases. Refused while one of them is loaded, or a job works with it."""
        return await removal.remove(Label(as_registered(name)), force=force)

    return router
