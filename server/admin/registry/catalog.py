"""`GET /admin/registry/catalog`: the models that can be pulled by their names."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from model_registry.catalog import Catalog
from model_registry.description import CatalogDescription, describe_catalog
from server.dialects.openai.wire.errors import documented
from server.http.access import GuardedRoute, requires
from server.principal import AccessScope
from server.storage.snapshots import RegistryAccess


class CatalogList(BaseModel):
    object: Literal["list"] = "list"
    data: list[CatalogDescription]


def catalog_router(registry: RegistryAccess, catalog: Catalog) -> APIRouter:
    router = APIRouter(prefix="/admin/registry/catalog", tags=["registry"], route_class=GuardedRoute)

    @router.get("", responses=documented(500, 503), summary="List the models that can be pulled by name")
    @requires(AccessScope.READ, changes_state=False)
    async def list_catalog() -> CatalogList:
        """Small models that are known to work. Any other is pulled by its address, such as `hf://org/repo`."""
        await registry.refresh()
        return CatalogList(data=describe_catalog(catalog, registry.snapshot.models.values()))

    return router
