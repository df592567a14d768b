"""All routers of `/admin/registry`, for the composition root."""

from __future__ import annotations

from fastapi import APIRouter

from jobs.service import JobService
from model_registry.catalog import load_catalog
from runtime.pool.model_pool import ModelPool
from server.admin.registry.aliases import aliases_router
from server.admin.registry.catalog import catalog_router
from server.admin.registry.models import models_router
from server.admin.registry.overview import overview_router
from server.admin.registry.pull_orders import PullOrders
from server.admin.registry.pulls import pulls_router
from server.admin.registry.removal import Removal
from server.admin.registry.versions import versions_router
from server.storage.storage import Storage


def registry_routers(storage: Storage, pool: ModelPool, jobs: JobService, *, offline: bool) -> list[APIRouter]:
    """pool: has what is loaded, which is not removed. jobs: run the pulls. offline: whether nothing may be fetched."""
    registry, catalog = storage.registry, load_catalog()
    removal = Removal(registry, pool)
    orders = PullOrders(jobs, registry, storage.files, catalog, offline=offline)
    return [
        overview_router(registry),
        models_router(registry, removal),
        versions_router(registry, removal),
        aliases_router(registry),
        catalog_router(registry, catalog),
        pulls_router(jobs, orders, registry),
    ]
