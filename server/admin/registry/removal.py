"""Removing a model or a version over HTTP: never what this daemon has loaded, unless that is forced."""

from __future__ import annotations

from pydantic import BaseModel

from model_registry.names import Label
from model_registry.registry import Registry
from runtime.pool.model_pool import ModelPool
from server.storage.snapshots import RegistryAccess


class RemovedBody(BaseModel):
    """removed: the versions that are gone, as `name:number`. freed_bytes: what no other version shares."""

    removed: list[str]
    freed_bytes: int


class Removal:
    """Knows which versions are loaded here; those that other processes work with, the registry knows."""

    def __init__(self, registry: RegistryAccess, pool: ModelPool) -> None:
        self._registry = registry
        self._pool = pool

    async def remove(self, label: Label, *, force: bool) -> RemovedBody:
        """label: a bare name means the whole model. Raises ModelNotFound, ModelInUse, RegistryBusy, NotWritable."""
        loaded = frozenset(model.spec.label for model in self._pool.loaded())

        def change(registry: Registry) -> RemovedBody:
            snapshot = registry.snapshot()
            found = snapshot.model(label.name).versions if label.is_bare else (snapshot.version_of(label),)
            name = label.name if label.is_bare else found[0].label
            freed = registry.remove(name, force=force, in_use=loaded)
            return RemovedBody(removed=[version.label for version in found], freed_bytes=freed)

        return await self._registry.write(change)
