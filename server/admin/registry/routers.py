"""All routers of `/admin/registry`, for the composition root."""

from __future__ import annotations

from fastapi import APIRouter

from model_registry.catalog import load_catalog
from runtime.pool.model_pool import ModelPool
from server.admin.registry.aliases import aliases_router
from server.admin.registry.catalog import catalog_router
from server.admin.registry.models import models_router
from server.admin.registry.overview import overview_router
from server.admin.registry.removal import Removal
from server.admin.registry.versions import versions_router
from server.storage.snapshots import RegistryAccess


def registry_routers(registry: RegistryAccess, pool: ModelPool) -> list[APIRouter]:
    """pool: has what is loaded, which is not removed."""
    removal, catalog = Removal(registry, pool), load_catalog()
    return [
        overview_router(registry),
        models_router(registry, removal),
        versions_router(registry, removal),
        aliases_router(registry),
        catalog_router(registry, catalog),
    ]
