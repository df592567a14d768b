"""Loads that wait for room, in the order in which they came: one per model, however many ask for it. Decides nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from runtime.errors import NotReady
from runtime.load_spec import LoadSpec
from runtime.resident_model import ResidentModel


@dataclass(slots=True)
class WaitingLoad:
    """placed: the model, once it loads. arithmetic: why it waits, for who gives up. num_asking: how many wait for it."""

    spec: LoadSpec
    placed: asyncio.Future[ResidentModel] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    arithmetic: str = ""
    num_asking: int = 0


class WaitingLoads:
    def __init__(self) -> None:
        self._loads: dict[str, WaitingLoad] = {}

    @property
    def first(self) -> WaitingLoad | None:
        return next(iter(self._loads.values()), None)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self._loads)

    def join(self, spec: LoadSpec) -> WaitingLoad:
        waiting = self._loads.setdefault(spec.label, WaitingLoad(spec))
        waiting.num_asking += 1
        return waiting

    def leave(self, waiting: WaitingLoad) -> bool:
        """One who asked is served, or gives up. True when that ends a load that nobody waits for any more."""
        waiting.num_asking -= 1
        if waiting.num_asking or waiting.placed.done():
            return False
        del self._loads[waiting.spec.label]
        return True

    def place(self, waiting: WaitingLoad, model: ResidentModel) -> None:
        del self._loads[waiting.spec.label]
        waiting.placed.set_result(model)

    def refuse(self, waiting: WaitingLoad, why: NotReady) -> None:
        del self._loads[waiting.spec.label]
        waiting.placed.set_exception(why)

    def fail_all(self, why: NotReady) -> None:
        for waiting in list(self._loads.values()):
            self.refuse(waiting, why)
