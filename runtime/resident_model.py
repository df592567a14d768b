"""One model in memory, through loading, serving, crashes and the end: a small state machine around a worker process.

Knows neither which model it should be nor who wants it; `ModelPool` decides that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

from runtime.errors import EngineDead, NotReady
from runtime.messages import ModelInfo, Stats
from runtime.worker_process import WorkerProcess

log = logging.getLogger("slmops.pool")

RESTART_DELAYS_S = (0.0, 0.5, 2.0, 5.0)  # after the 1st, 2nd, ... crash in a row; the last repeats
STEADY_S = 60.0  # a worker that lived so long had no part in a row of crashes


class ModelState(StrEnum):
    """LOADING: the first load. READY: serves. RESTARTING: its worker died, another loads. UNLOADING: drains; takes nothing new."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    UNLOADING = "unloading"


class ResidentModel:
    """spawn: starts a worker process and tells it what to load. on_failed(why): a load failed, and with it this model."""

    def __init__(self, label: str, spawn: Callable[[], Awaitable[WorkerProcess]], on_failed: Callable[[NotReady], None]) -> None:
        self._label = label
        self._spawn = spawn
        self._on_failed = on_failed
        self._worker: WorkerProcess | None = None
        self._dead: WorkerProcess | None = None  # the worker before; perhaps not reaped yet
        self._load: asyncio.Task[ModelInfo] | None = None
        self._ready_at = 0.0
        self._crashes_in_row = 0
        self.state = ModelState.LOADING
        self.info: ModelInfo | None = None
        self.num_leases = 0
        self.num_restarts = 0
        self.loaded_at: float | None = None
        self.idle_since: float | None = None

    @property
    def stats(self) -> Stats | None:
        return self._worker.stats if self._worker is not None else None

    def begin_load(self) -> None:
        self._load = asyncio.create_task(self._start(), name=f"load {self._label}")
        self._load.add_done_callback(self._loaded)

    async def ready(self) -> ModelInfo:
        """Waits for the load in progress, if any. Raises NotReady: it failed, or the model is leaving."""
        if self.state is ModelState.UNLOADING or self._load is None:
            raise self._leaving()
        load = self._load
        try:
            return await asyncio.shield(load)
        except asyncio.CancelledError:
            if load.cancelled():
                raise self._leaving() from None
            raise

    def _leaving(self) -> NotReady:
        return NotReady(f"{self._label} is being unloaded. Retry in a moment.", code="unloading", retry_after_s=1.0)

    def worker(self) -> WorkerProcess:
        if self._worker is None or self._worker.exited.is_set():
            raise EngineDead(f"The worker of {self._label} is being restarted. Retry the request.", retry_after_s=1.0)
        return self._worker

    def hold(self) -> None:
        self.num_leases += 1
        self.idle_since = None

    def let_go(self) -> None:
        self.num_leases -= 1
        if self.num_leases == 0:
            self.idle_since = time.time()

    async def unload(self, grace_s: float, reason: NotReady) -> None:
        """Lets open requests finish for grace_s, then ends them with `reason`, and the worker with them."""
        self.state = ModelState.UNLOADING
        if self._load is not None and not self._load.done():
            self._load.cancel()
            await asyncio.wait([self._load])
        if self._dead is not None:
            await self._dead.reap()
        worker = self._worker
        if worker is None:
            return
        worker.drain()
        try:
            async with asyncio.timeout(grace_s):
                await worker.exited.wait()
        except (TimeoutError, asyncio.CancelledError) as why:
            worker.fail_open(reason)
            worker.kill()
            if isinstance(why, asyncio.CancelledError):
                raise
        await worker.reap()

    async def _start(self) -> ModelInfo:
        worker = await self._spawned()
        info = await worker.wait_ready()
        self._worker, self.info = worker, info
        self.loaded_at = self.idle_since = time.time()
        self.state = ModelState.READY
        self._ready_at = time.monotonic()
        worker.on_exit = self._restart
        log.info("loaded %s in %.2f s (pid %d, %d MB resident)", self._label, info.load_s, worker.pid, info.resident_bytes >> 20)
        return info

    async def _spawned(self) -> WorkerProcess:
        """Being cancelled while the process starts must not leave it behind."""
        spawning = asyncio.ensure_future(self._spawn())
        try:
            return await asyncio.shield(spawning)
        except OSError as error:
            raise NotReady(f"No worker can be started for {self._label}: {error}.", code="load_failed") from error
        except asyncio.CancelledError:
            worker = await spawning
            worker.kill()
            await worker.reap()
            raise

    def _restart(self, worker: WorkerProcess) -> None:
        """Called in the moment a worker is found gone, before its callers know: who asks next waits for the new one."""
        if self.state is ModelState.UNLOADING:
            return
        self._crashes_in_row = 0 if time.monotonic() - self._ready_at > STEADY_S else self._crashes_in_row + 1
        delay = RESTART_DELAYS_S[min(max(self._crashes_in_row - 1, 0), len(RESTART_DELAYS_S) - 1)]
        log.error("the worker of %s (pid %d) ended unexpectedly; restart in %g s", self._label, worker.pid, delay)
        self.state = ModelState.RESTARTING
        self._dead, self._worker, self.info = worker, None, None
        self.num_restarts += 1
        self._load = asyncio.create_task(self._start_after(worker, delay), name=f"restart {self._label}")
        self._load.add_done_callback(self._loaded)

    async def _start_after(self, dead: WorkerProcess, delay: float) -> ModelInfo:
        await dead.reap()
        await asyncio.sleep(delay)
        return await self._start()

    def _loaded(self, load: asyncio.Task[ModelInfo]) -> None:
        """Also when nobody waits for it: a model that cannot be loaded must not look as if it were about to be."""
        if load.cancelled() or (error := load.exception()) is None:
            return
        log.error("%s failed: %s", load.get_name(), error)
        if isinstance(error, NotReady):
            self._on_failed(error)
        else:
            self._on_failed(NotReady(f"{self._label} could not be loaded: {type(error).__name__} {error}", code="load_failed"))
