"""Workers that exist only here: they load, die and end when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from model_registry.records import Capability
from runtime.errors import NotReady
from runtime.generation import Generation
from runtime.inquiries import Answer, Inquiry
from runtime.messages import Detokenized, EngineOptions, ModelInfo, Stats, Submit
from runtime.pool.loaded_model import PoolEvent
from runtime.pool.resident_model import ResidentModel
from runtime.worker_process import WorkerProcess

INFO = ModelInfo(
    engine="none",
    provider="none",
    architecture="none",
    context_length=1,
    vocab_size=1,
    num_slots=1,
    threads=1,
    kv_bytes_per_token=1,
    capabilities=frozenset({Capability.COMPLETION}),
    load_s=0.0,
    resident_bytes=0,
    pid=0,
    can_set_threads=True,
)


class ScriptedWorker:
    """What a replica uses of a WorkerProcess. fails: it cannot load. may_load: set when it may. lingers: only a kill ends it."""

    def __init__(self, *, fails: str | None = None, may_load: asyncio.Event | None = None, lingers: bool = False) -> None:
        self._fails = fails
        self._may_load = may_load
        self._lingers = lingers
        self.pid = 1
        self.death = "it was told to."
        self.num_open = 0
        self.stats: Stats | None = None
        self.exited = asyncio.Event()
        self.on_exit: Callable[[ScriptedWorker], None] = lambda _: None
        self.on_finished: Callable[[], None] = lambda: None
        self.calls: list[str] = []
        self.submitted: list[Submit] = []
        self.asked: list[Inquiry] = []

    async def wait_ready(self) -> ModelInfo:
        if self._may_load is not None:
            await self._may_load.wait()
        if self._fails is not None:
            raise NotReady(self._fails, code="load_failed")
        return INFO

    async def reap(self) -> None:
        await self.exited.wait()

    def submit(self, make: Callable[[int], Submit]) -> Generation:
        self.submitted.append(make(len(self.submitted) + 1))
        self.num_open += 1
        return Generation(len(self.submitted), lambda _: None)

    async def ask(self, make: Callable[[int], Inquiry]) -> Answer:
        self.asked.append(make(len(self.asked) + 1))
        return Detokenized(request=len(self.asked), text="")

    def set_threads(self, num_threads: int) -> None:
        self.calls.append(f"set_threads {num_threads}")

    def drain(self) -> None:
        self.calls.append("drain")
        if not self._lingers:
            self.exited.set()

    def kill(self) -> None:
        self.calls.append("kill")
        self.exited.set()

    def fail_open(self, failure: NotReady) -> None:
        self.calls.append(f"fail_open {failure}")

    def die(self) -> None:
        self.exited.set()
        self.on_exit(self)


class Fleet:
    """Spawns workers as `script` says, one entry each, then such as load; remembers them."""

    def __init__(self, script: Sequence[Callable[[], ScriptedWorker]] = ()) -> None:
        self._script = list(script)
        self.workers: list[ScriptedWorker] = []

    async def spawn(self, *_: object) -> WorkerProcess:
        self.workers.append(self._script.pop(0)() if self._script else ScriptedWorker())
        return cast(WorkerProcess, self.workers[-1])


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

    def tell(self, event: PoolEvent) -> None:
        self.events.append(event)


async def settle(*awaited: Coroutine[Any, Any, Any]) -> list[Any]:
    """Starts these, and lets everything go as far as it can by itself."""
    tasks = [asyncio.create_task(each) for each in awaited]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks
