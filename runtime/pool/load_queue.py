"""Loads that wait for room: one per model, however many requests wait for it. Has room made for the first.

The first is that of the principal whose last load is longest ago; of one principal's, first come, first served. So a caller that
requests fifty models in turn delays the loads of others by one at most.

No load starves: one that waits behind busy models gets its turn although they are in constant use, since each of them,
once it has served for TURN_S, takes no new request until the load has its room. Their requests meanwhile wait in the queue.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Protocol

from runtime.pool.capacity import Fits, MustEvict, MustWait, NeverFits, Verdict
from runtime.pool.failures import no_room
from runtime.pool.loaded_model import LoadSpec
from runtime.pool.resident_model import ResidentModel
from runtime.protocol.errors import NotReady

TURN_S = 2.0


class Room(Protocol):
    """The interface of the pool to the queue: questions and commands."""

    def find(self, label: str) -> ResidentModel | None: ...

    def why_not(self, label: str) -> NotReady | None:
        """Why this model is not tried at the moment, if so: it has failed."""
        ...

    def plan(self, spec: LoadSpec) -> Verdict: ...

    def begin_load(self, spec: LoadSpec, charge_bytes: int) -> ResidentModel: ...

    def evict(self, label: str) -> None:
        """Calls `look` when it is gone."""
        ...

    def no_room(self, spec: LoadSpec) -> NotReady: ...


@dataclass(slots=True)
class _WaitingLoad:
    """placed: the model, once it loads. askers: the principal of each that waits for it."""

    spec: LoadSpec
    placed: asyncio.Future[ResidentModel] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    askers: list[str] = field(default_factory=list)


class LoadQueue:
    def __init__(self, room: Room) -> None:
        self._room = room
        self._loads: dict[str, _WaitingLoad] = {}
        self._served: dict[str, int] = {}  # of each principal, the number of the last load that was placed for it
        self._num_served = 0
        self._yielding: frozenset[str] = frozenset()  # busy models that take nothing new
        self._next_look: asyncio.TimerHandle | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The next one first."""
        return tuple(load.spec.label for load in sorted(self._loads.values(), key=self._turn))

    def _turn(self, load: _WaitingLoad) -> int:
        return min((self._served.get(principal, 0) for principal in load.askers), default=0)

    async def place(self, spec: LoadSpec, deadline: float, principal: str = "") -> ResidentModel:
        """The model, loading at least. deadline: by the monotonic clock. Raises NotReady: no room, now or ever."""
        model = self._room.find(spec.label)
        if model is not None and spec.label not in self._yielding:
            return model
        load = self._loads.setdefault(spec.label, _WaitingLoad(spec))
        load.askers.append(principal)
        try:
            self.look()
            if not load.placed.done():
                await asyncio.wait([load.placed], timeout=max(0.0, deadline - time.monotonic()))
            if not load.placed.done():
                raise self._room.no_room(spec)
            return load.placed.result()
        finally:
            self._leave(load, principal)

    def respecify(self, spec: LoadSpec) -> None:
        """A waiting load of this model will use `spec`."""
        if spec.label in self._loads:
            self._loads[spec.label].spec = spec

    def look(self) -> None:
        """Places loads while there is room, and has room made for the next. To be called whenever anything has changed."""
        self._yielding = frozenset()
        while (load := min(self._loads.values(), key=self._turn, default=None)) is not None:
            label = load.spec.label
            if (model := self._room.find(label)) is not None:
                self._place(load, model)
            elif (why := self._room.why_not(label)) is not None:
                self._refuse(load, why)
            elif not self._is_placed(load):
                return

    def fail_all(self, why: NotReady) -> None:
        for load in list(self._loads.values()):
            self._refuse(load, why)

    def _is_placed(self, load: _WaitingLoad) -> bool:
        """Placed or refused, that is; else whatever can be done for it is done."""
        match self._room.plan(load.spec):
            case NeverFits(arithmetic=arithmetic):
                self._refuse(load, no_room(arithmetic))
                return True
            case Fits(charge_bytes=charge_bytes):
                self._place(load, self._room.begin_load(load.spec, charge_bytes))
                return True
            case MustEvict(labels=labels):
                for label in labels:
                    self._room.evict(label)
            case MustWait(busy=busy):
                self._have_yield(busy)
        return False

    def _have_yield(self, busy: tuple[str, ...]) -> None:
        """Makes models that have had their turn yield; looks again when the next has."""
        left_s = {label: self._left_of_turn_s(label) for label in busy}
        self._yielding = frozenset(label for label in busy if left_s[label] <= 0)
        if self._next_look is not None:
            self._next_look.cancel()
        next_s = min((each for each in left_s.values() if each > 0), default=None)
        self._next_look = None if next_s is None else asyncio.get_running_loop().call_later(next_s, self.look)

    def _left_of_turn_s(self, label: str) -> float:
        model = self._room.find(label)
        return TURN_S if model is None or model.loaded_at is None else model.loaded_at + TURN_S - time.time()

    def _place(self, load: _WaitingLoad, model: ResidentModel) -> None:
        del self._loads[load.spec.label]
        self._num_served += 1
        self._served |= dict.fromkeys(load.askers, self._num_served)
        load.placed.set_result(model)

    def _refuse(self, load: _WaitingLoad, why: NotReady) -> None:
        del self._loads[load.spec.label]
        load.placed.set_exception(why)
        load.placed.exception()  # its waiters may have left at this moment: then no one else would retrieve the exception

    def _leave(self, load: _WaitingLoad, principal: str) -> None:
        """One waiter is served or gives up. A load without waiters is dropped."""
        load.askers.remove(principal)
        if not load.askers and not load.placed.done():
            del self._loads[load.spec.label]
            self.look()
