"""A model's replicas: one worker each through its load, its crashes and its end, and which of them gets a request.

`Replica` is a small state machine around a `WorkerHandle`, which restarts what dies until the model's breaker opens. `ReplicaSet`
chooses among them. Neither knows who uses the model, nor where workers run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator

from runtime.pool.breaker import Breaker
from runtime.pool.failures import being_restarted, not_loadable
from runtime.pool.generation import Answer, Generation, Inquiry
from runtime.pool.handle import WorkerHandle
from runtime.pool.loaded_model import LoadedReplica, ModelState
from runtime.pool.routing import ReplicaLoad, SeenPrefixes, choose_replica, prefix_blocks
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import ModelInfo, Submit

log = logging.getLogger("slmops.pool")

LOAD_LIMIT_S = 900.0  # a load that takes longer hangs


class Replica:
    """start: starts a worker and loads the model in it, as `handle.WorkerFactory` does.

    on_ready(): called after each load. on_died(reason): the worker ended and another is started. on_lost(self, failure): it ended,
    or could not load, and no other is started.
    """

    def __init__(
        self,
        label: str,
        start: Callable[[], Awaitable[WorkerHandle]],
        breaker: Breaker,
        *,
        on_ready: Callable[[], None],
        on_died: Callable[[str], None],
        on_lost: Callable[[Replica, NotReady], None],
    ) -> None:
        self._label = label
        self._start_worker = start
        self._breaker = breaker
        self._on_ready = on_ready
        self._on_died = on_died
        self._on_lost = on_lost
        self._worker: WorkerHandle | None = None
        self._dead: WorkerHandle | None = None  # the worker before; perhaps not reaped yet
        self._loading: asyncio.Task[ModelInfo] | None = None
        self.seen = SeenPrefixes()
        self.state = ModelState.LOADING
        self.threads = 0
        self.num_restarts = 0

    def begin_load(self) -> None:
        self._begin(self._start(), "load")

    @property
    def loading(self) -> asyncio.Task[ModelInfo]:
        """The load in progress, or the last one. Wait for it by `asyncio.wait`: it must not be cancelled with those who wait."""
        assert self._loading is not None
        return self._loading

    @property
    def info(self) -> ModelInfo | None:
        """What its worker has loaded; None while it has none."""
        return None if self._worker is None else self._worker.info

    def worker(self) -> WorkerHandle:
        """Raises EngineDead while there is none."""
        if self._worker is None or self._worker.has_exited:
            raise being_restarted(self._label)
        return self._worker

    @property
    def num_open(self) -> int:
        return self._worker.num_open if self._worker is not None else 0

    def set_threads(self, num_threads: int) -> None:
        """What it computes with from the next step on, where its engine can change that."""
        if self._worker is None or not self._worker.info.can_set_threads or num_threads == self.threads:
            return
        self.threads = num_threads
        self._worker.set_threads(num_threads)

    def view(self) -> LoadedReplica:
        stats = self._worker.stats if self._worker is not None else None
        return LoadedReplica(self.state, self.info, stats, self.num_restarts)

    async def unload(self, grace_s: float, reason: NotReady) -> None:
        """Lets open requests finish for grace_s, then ends them with `reason`, and the worker with them."""
        self.state = ModelState.UNLOADING
        if not self.loading.done():
            if not self.loading.cancelling():  # once: a second time would stop it from cleaning up
                self.loading.cancel()
            await asyncio.wait([self.loading])
        if self._dead is not None:
            await self._dead.reap()
        worker = self._worker
        if worker is None:
            return
        worker.drain()
        try:
            async with asyncio.timeout(grace_s):
                await worker.wait_exit()
        except (TimeoutError, asyncio.CancelledError) as why:
            worker.fail_open(reason)
            worker.kill()
            if isinstance(why, asyncio.CancelledError):
                raise
        await worker.reap()

    def _begin(self, load: Coroutine[None, None, ModelInfo], verb: str) -> None:
        self._loading = asyncio.create_task(load, name=f"{verb} {self._label}")
        self._loading.add_done_callback(self._loaded)

    async def _start(self) -> ModelInfo:
        try:
            async with asyncio.timeout(LOAD_LIMIT_S):
                worker = await self._start_worker()
        except TimeoutError:
            raise NotReady(f"{self._label} was not loaded within {LOAD_LIMIT_S:g} s.", code="load_failed") from None
        info = worker.info
        self._worker, self.threads, self.state = worker, info.threads, ModelState.READY
        worker.watch(on_exit=lambda: self._restart(worker), on_finished=self._breaker.worked)
        log.debug("loaded %s in %.2f s (pid %d, %d MB resident)", self._label, info.load_s, info.pid, info.resident_bytes >> 20)
        return info

    def _restart(self, worker: WorkerHandle) -> None:
        """Called when a worker has exited, before its callers are notified, so that those who retry wait for the new one."""
        if self.state is ModelState.UNLOADING:
            return
        self.state = ModelState.RESTARTING
        self._dead, self._worker = worker, None
        self.seen = SeenPrefixes()
        self.num_restarts += 1
        self._begin(self._start_after(worker), "restart")

    async def _start_after(self, dead: WorkerHandle) -> ModelInfo:
        reason = await dead.reap()
        self._on_died(reason)
        self._breaker.failed(f"The worker died: {reason}")
        if self._breaker.is_open:
            raise self._breaker.refusal()
        await asyncio.sleep(self._breaker.pause_s)
        return await self._start()

    def _loaded(self, loading: asyncio.Task[ModelInfo]) -> None:
        """Runs even if no caller waits: a model that cannot be loaded must not stay in the state of loading."""
        if loading.cancelled():
            return
        error = loading.exception()
        if error is None:
            self._on_ready()
            return
        if not isinstance(error, NotReady):
            log.error("%s could not be loaded", self._label, exc_info=error)
        self._on_lost(self, not_loadable(self._label, error))


class ReplicaSet:
    def __init__(self) -> None:
        self._replicas: list[Replica] = []

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas)

    def __len__(self) -> int:
        return len(self._replicas)

    def add(self, replica: Replica) -> None:
        self._replicas.append(replica)

    def remove(self, replica: Replica) -> None:
        self._replicas.remove(replica)

    @property
    def serving(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica.state is ModelState.READY]

    @property
    def loads(self) -> list[asyncio.Task[ModelInfo]]:
        """Of each replica, the load in progress or the last one."""
        return [replica.loading for replica in self._replicas]

    def submit(self, message: Submit) -> Generation:
        """On the serving replica that suits the prompt best; one must serve. Raises as `WorkerHandle.submit`."""
        serving = self.serving
        if len(serving) == 1:
            return serving[0].worker().submit(message)
        blocks = prefix_blocks(message.prompt)
        chosen = serving[choose_replica([ReplicaLoad(each.num_open, each.seen.num_matched(blocks)) for each in serving])]
        generation = chosen.worker().submit(message)
        chosen.seen.remember(blocks)
        return generation

    def inquire(self, message: Inquiry) -> Awaitable[Answer]:
        """On the serving replica with the least to do; one must serve. Raises as `WorkerHandle.inquire`."""
        return min(self.serving, key=lambda replica: replica.num_open).worker().inquire(message)

    async def unload(self, grace_s: float, reason: NotReady) -> None:
        """Lets open requests finish for grace_s, then ends them with `reason`, and the workers with them."""
        await asyncio.gather(*(replica.unload(grace_s, reason) for replica in self._replicas))
