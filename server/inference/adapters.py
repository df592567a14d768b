"""Attaching and detaching adapters while their base is served. Owns the order: check, register, reload beside the old worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from model_registry.errors import RegistryBusy, RegistryError
from server.inference.model_control import ModelControl
from server.inference.resolution import ServedModel
from server.inference.served_models import Attached, ServedModels
from server.storage.threads import LOCK_WAIT_S

UNDO_WAIT_S = 60.0  # for other writers, before what was registered in vain is left as it is
_log = logging.getLogger("slmops.adapters")


class Adapters:
    """Attaches and detaches adapters without losing requests: running ones end on the worker that they began on, new ones go to the
    changed one.
    """

    def __init__(self, models: ServedModels, control: ModelControl) -> None:
        self._models = models
        self._control = control
        self._changing = asyncio.Lock()

    async def attached(self, model: str) -> Sequence[Attached]:
        """Raises ModelNotFound."""
        await self._models.refresh()
        return self._models.attached(model)

    async def attach(self, model: str, name: str, version: str) -> Attached:
        """Changes nothing if it raises: RegistryError for what does not fit or for another writer, NotReady when the base
        cannot be reloaded.
        """
        deadline_s = time.monotonic() + LOCK_WAIT_S
        async with self._changing:
            attached = await self._models.attach(model, name, version, deadline_s)
            try:
                await asyncio.to_thread(_check, attached.base)
                await self._control.reload_if_loaded(attached.base)
            except BaseException:
                await self._undo(model, name)
                raise
            return attached

    async def detach(self, model: str, name: str) -> Attached:
        """Raises ModelNotFound, RegistryBusy; NotReady when the base cannot be reloaded: then the adapter is gone from the next
        load on.
        """
        deadline_s = time.monotonic() + LOCK_WAIT_S
        async with self._changing:
            await self._models.refresh()
            detached = await self._models.detach(model, name, deadline_s)
            await self._control.reload_if_loaded(detached.base)
            return detached

    async def _undo(self, model: str, name: str) -> None:
        """In attempts as long as a request's, between which others may write."""
        give_up_s = time.monotonic() + UNDO_WAIT_S
        while True:
            try:
                await self._models.detach(model, name)
                return
            except RegistryError as error:
                if isinstance(error, RegistryBusy) and time.monotonic() < give_up_s:
                    continue
                fields = {"adapter": f"{model}:{name}", "why": str(error)}
                _log.error("an adapter that is not served stays registered", extra={"fields": fields})
                return


def _check(base: ServedModel) -> None:
    """Checks the adapter on the builds that our engine can run; others serve no adapters."""
    from runtime.engines.onnx.adapters import check_adapters

    for variant in base.variants:
        if variant.provider_family == "cpu":
            check_adapters(base.adapters, variant.folder)
