"""What a model in memory tells its pool, written down; and a way to let everything go on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from runtime.pool.loaded_model import PoolEvent
from runtime.pool.resident_model import ResidentModel
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import EngineOptions


class ScriptedOwner:
    """A pool of one model, which has room for everything except the `refused` folders."""

    def __init__(self, refused: Sequence[str] = ()) -> None:
        self._refused = refused
        self.events: list[PoolEvent] = []
        self.failures: list[str] = []
        self.num_changes = 0
        self.expiries: asyncio.Queue[ResidentModel] = asyncio.Queue()

    def grant(self, model: ResidentModel, candidate: Any) -> EngineOptions:
        if str(candidate.folder) in self._refused:
            raise NotReady("no room", code="insufficient_memory")
        return model.spec.options

    def changed(self, model: ResidentModel) -> None:
        self.num_changes += 1

    def expired(self, model: ResidentModel) -> None:
        self.expiries.put_nowait(model)

    def lost(self, model: ResidentModel, why: NotReady) -> None:
        self.failures.append(str(why))

    def publish_event(self, event: PoolEvent) -> None:
        self.events.append(event)


async def settle(*awaited: Coroutine[Any, Any, Any]) -> list[Any]:
    """Starts these, and lets everything go as far as it can by itself."""
    tasks = [asyncio.create_task(each) for each in awaited]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks
