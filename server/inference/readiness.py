"""Whether the daemon is ready, which is whether its default model answers; and the loads at its start that make it so."""

from __future__ import annotations

import logging

from model_registry.errors import RegistryError
from runtime.pool.loaded_model import ModelState
from runtime.protocol.errors import RuntimeFailure
from server.inference.gateway import Gateway, with_remedy
from server.inference.lifecycle import Lifecycle
from server.inference.resolution import Unresolved

_log = logging.getLogger("slmops.gateway")


class Readiness:
    """One per app. Belongs to its event loop."""

    def __init__(self, gateway: Gateway, lifecycle: Lifecycle) -> None:
        self._gateway = gateway
        self._settings = gateway.settings
        self._lifecycle = lifecycle
        self._is_warming = False

    async def warm_up(self) -> None:
        """Loads the default model, so that its first request need not wait, then those that are pinned.

        A failure is logged; when it is the default model's, the daemon is not ready.
        """
        self._is_warming = True
        try:
            await self._warm_up(self._settings.model)
        finally:
            self._is_warming = False
        for name in await self._pinned():
            await self._warm_up(name)

    def why_not_ready(self) -> str | None:
        """None when the default model answers, or would after a load; else the reason."""
        if not self._lifecycle.is_serving:
            return "The server is shutting down."
        found = self._gateway.models.resolve(self._settings.model)
        if isinstance(found, Unresolved):
            return found.message
        label, pool = found.label, self._gateway.pool
        states = {each.state for each in pool.loaded() if each.spec.label == label}  # two, while it is reloaded
        if ModelState.READY in states:
            return None
        if self._is_warming or states & {ModelState.LOADING, ModelState.RESTARTING}:
            return f"The default model {label} is loading."
        last = pool.load_failure(label) or self._gateway.load_refusal(label)
        return None if last is None else with_remedy(last, label).message

    async def _pinned(self) -> list[str]:
        """By the settings. Settings for a model that is not here are logged, since nothing else would show them."""
        known = []
        for name, settings in self._settings.models.items():
            try:
                await self._gateway.resolve(name)
            except RegistryError as failure:
                _log.warning("settings for an unknown model", extra={"fields": {"model": name, "why": str(failure)}})
            else:
                known += [name] if settings.pin else []
        return known

    async def _warm_up(self, name: str) -> None:
        try:
            resolution = await self._gateway.resolve(name)
            (await self._gateway.acquire(resolution.model)).release()
            _log.info("model ready", extra={"fields": {"model": resolution.label}})
        except (RuntimeFailure, RegistryError) as failure:
            _log.warning("model not ready", extra={"fields": {"model": name, "why": str(failure)}})
