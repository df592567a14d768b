"""Loading, reloading and unloading models by hand, as an administrator does. Requests load what they need by `Gateway.acquire`."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.pool.lease import Lease
from runtime.protocol.errors import RuntimeFailure
from server.inference.gateway import Gateway, with_remedy
from server.inference.load_plans import LoadPlans
from server.inference.resolution import ServedModel
from server.settings.models import ModelSettings
from server.settings.units import keep_alive_s


class ModelControl:
    """One per app. Belongs to its event loop."""

    def __init__(self, gateway: Gateway, plans: LoadPlans) -> None:
        self._gateway = gateway
        self._pool = gateway.pool
        self._plans = plans

    async def load(self, model: ServedModel, changes: ModelSettings) -> Lease:
        """A lease on the model. keep_alive and pin of the changes hold from now on, whether it was loaded or not.

        Raises NotReady, EngineDead.
        """
        self._plans.change(model.label, changes)
        kept_s = None if changes.keep_alive is None else keep_alive_s(changes.keep_alive)
        lease = await self._gateway.acquire(model, kept_s)
        if changes.pin is not None:
            self._pool.pin(model.label, changes.pin)
        return lease

    async def reload(self, model: ServedModel, changes: ModelSettings) -> Lease:
        """A lease on the model, loaded anew with these settings while requests go on.

        Raises NotReady; the model then has the settings that it had.
        """
        settings, take_back = self._gateway.settings, self._plans.change(model.label, changes)
        try:
            spec = await self._plans.spec(model)
            await self._pool.reload(spec, timeout_s=settings.load_timeout_s, grace_s=settings.request_timeout_s)
        except BaseException as failure:
            take_back()
            raise with_remedy(failure, model.label) if isinstance(failure, RuntimeFailure) else failure from None
        return await self._gateway.acquire(model)

    async def reload_if_loaded(self, model: ServedModel) -> None:
        """With the settings that it has. Raises NotReady."""
        if self._pool.spec_of(model.label) is not None:
            (await self.reload(model, ModelSettings())).release()

    async def unload(self, name: str, *, grace_s: float = 0.0) -> Sequence[str]:
        """Ends the workers of every loaded version of that name, or of the one that `name:number` or `name:alias` means.

        Returns their labels; none when none is loaded. Raises ModelNotFound.
        """
        labels = [each.spec.label for each in self._pool.loaded()]
        is_version = ":" in name and name not in labels
        meant = {name, (await self._gateway.resolve(name)).label} if is_version else {name}
        unwanted = [label for label in labels if meant & {label, label.rpartition(":")[0]}]
        return [label for label in unwanted if await self._pool.unload(label, grace_s=grace_s)]
