"""Attaching and detaching adapters while their base is served. Owns the order: check, register, load anew beside the old worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from server.gateway import Gateway
from server.model_settings import ModelSettings
from server.served_models import Attached, ServedModel


class Adapters:
    """No request is lost: running ones end on the worker that they began on, new ones go to the one that has the change."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._changing = asyncio.Lock()

    def attached(self, model: str) -> Sequence[Attached]:
        """Raises ModelNotFound."""
        return self._gateway.models.attached(model)

    async def attach(self, model: str, name: str, version: str) -> Attached:
        """Nothing has changed when it raises: RegistryError for what does not fit, NotReady when the base cannot be loaded anew."""
        async with self._changing:
            attached = self._gateway.models.attach(model, name, version)
            try:
                await asyncio.to_thread(_check, attached.base)
                await self._load_anew(attached.base)
            except BaseException:
                self._gateway.models.detach(model, name)
                raise
            return attached

    async def detach(self, model: str, name: str) -> Attached:
        """Raises ModelNotFound; NotReady when the base cannot be loaded anew: then the adapter is gone from the next load on."""
        async with self._changing:
            detached = self._gateway.models.detach(model, name)
            await self._load_anew(detached.base)
            return detached

    async def _load_anew(self, base: ServedModel) -> None:
        if self._gateway.pool.spec_of(base.label) is not None:
            (await self._gateway.reload(base, ModelSettings())).release()


def _check(base: ServedModel) -> None:
    """On the builds that our engine can run; others serve no adapters."""
    from runtime.engines.onnx_adapters import check_adapters

    for variant in base.variants:
        if variant.provider_family == "cpu":
            check_adapters(base.adapters, variant.folder)
