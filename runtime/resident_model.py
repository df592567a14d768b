"""A model in memory: its replicas, who holds it, and how long it stays when nobody does. Decides nothing about other models."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from runtime.breaker import Breaker
from runtime.errors import NotReady
from runtime.generation import Generation
from runtime.load_spec import FOREVER, Candidate, LoadSpec
from runtime.loaded_model import Died, Fallback, FellThrough, Loaded, LoadedModel, ModelState, PoolEvent
from runtime.messages import EngineOptions, ModelInfo, Prompt, Submit
from runtime.replica import Replica
from runtime.routing import ReplicaLoad, choose_replica, prefix_blocks
from runtime.worker_process import WorkerProcess

log = logging.getLogger("slmops.pool")

EXIT_S = 5.0  # what a worker with nothing to do gets to end by itself
Spawn = Callable[[str, Candidate, EngineOptions], Awaitable[WorkerProcess]]


class Owner(Protocol):
    """What a model asks of the pool, and tells it."""

    def grant(self, model: ResidentModel, candidate: Candidate) -> EngineOptions:
        """The options with which this candidate may load now. Raises NotReady when there is no room for it."""
        ...

    def changed(self, model: ResidentModel) -> None:
        """It became ready, busy or idle."""
        ...

    def expired(self, model: ResidentModel) -> None:
        """Its keep-alive has ended."""
        ...

    def lost(self, model: ResidentModel, why: NotReady) -> None:
        """It cannot be loaded, or not any more."""
        ...

    def tell(self, event: PoolEvent) -> None: ...


class ResidentModel:
    def __init__(self, spec: LoadSpec, spawn: Spawn, breaker: Breaker, owner: Owner) -> None:
        self.spec = spec
        self._spawn = spawn
        self._breaker = breaker
        self._owner = owner
        self._replicas: list[Replica] = []
        self._loading: asyncio.Task[None] | None = None
        self._fallbacks: list[Fallback] = []
        self._is_leaving = False
        self._expiry: asyncio.TimerHandle | None = None
        self._nobody = asyncio.Event()  # set while no lease is open
        self._nobody.set()
        self.candidate: Candidate | None = None
        self.charge_bytes = 0  # what the memory budget counts for it; the pool keeps these two
        self.kv_bytes = 0  # that each worker may use for KV
        self.pinned = spec.pinned
        self.keep_alive_s = spec.keep_alive_s
        self.num_leases = 0
        self.last_used = time.monotonic()
        self.loaded_at: float | None = None
        self.idle_since: float | None = None
        self.expires_at: float | None = None

    @property
    def label(self) -> str:
        return self.spec.label

    @property
    def state(self) -> ModelState:
        if self._is_leaving:
            return ModelState.UNLOADING
        if self.loaded_at is None:
            return ModelState.LOADING
        return ModelState.READY if any(r.state is ModelState.READY for r in self._replicas) else ModelState.RESTARTING

    @property
    def is_busy(self) -> bool:
        return self.num_leases > 0 or self.loaded_at is None

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(self._replicas)

    def begin_load(self) -> None:
        self._loading = asyncio.create_task(self._load(), name=f"load {self.label}")
        self._loading.add_done_callback(self._loaded)

    async def ready(self) -> ModelInfo:
        """Waits until one replica serves. Raises NotReady: none can be loaded, or the model is leaving."""
        if self._is_leaving or self._loading is None:
            raise self._leaving()
        loading = self._loading
        try:
            await asyncio.shield(loading)
        except asyncio.CancelledError:
            if loading.cancelled():
                raise self._leaving() from None
            raise
        return await self._first_ready()

    def submit(self, prompt: Prompt, make: Callable[[int], Submit]) -> Generation:
        """On the replica that suits the prompt best. Raises EngineDead when there is none at the moment."""
        up = [replica for replica in self._replicas if replica.state is ModelState.READY] or self._replicas[:1]
        if len(up) == 1:
            return up[0].worker().submit(make)
        blocks = prefix_blocks(prompt)
        chosen = up[choose_replica([ReplicaLoad(each.num_open, each.seen.num_matched(blocks)) for each in up])]
        generation = chosen.worker().submit(make)
        chosen.seen.remember(blocks)
        return generation

    def hold(self) -> None:
        self.num_leases += 1
        self.idle_since = None
        self._nobody.clear()
        self._cancel_expiry()
        if self.num_leases == 1:
            self._owner.changed(self)

    def let_go(self) -> None:
        self.num_leases -= 1
        self.last_used = time.monotonic()
        if self.num_leases == 0:
            self._nobody.set()
            self._become_idle()

    def keep(self, keep_alive_s: float) -> None:
        """From now on, it stays so long after its last request."""
        self.keep_alive_s = keep_alive_s
        if self.idle_since is not None:
            self._arm_expiry()

    def pin(self, pinned: bool) -> None:
        self.pinned = pinned
        if self.idle_since is not None:
            self._arm_expiry()

    async def unload(self, grace_s: float, reason: NotReady, *, once_idle: bool = False) -> None:
        """Lets open requests finish for grace_s, then ends them with `reason`, and the workers with them.

        once_idle: first waits, as part of the grace, until no lease is open, so that also what is about to be submitted is served.
        """
        self._is_leaving = True
        self._cancel_expiry()
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait([self._loading])
        if once_idle:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nobody.wait(), grace_s)
            grace_s = EXIT_S
        await asyncio.gather(*(replica.unload(grace_s, reason) for replica in self._replicas))

    def view(self) -> LoadedModel:
        return LoadedModel(
            spec=self.spec,
            state=self.state,
            candidate=self.candidate,
            fallbacks=tuple(self._fallbacks),
            replicas=tuple(replica.view() for replica in self._replicas),
            charge_bytes=self.charge_bytes,
            num_leases=self.num_leases,
            pinned=self.pinned,
            keep_alive_s=self.keep_alive_s,
            loaded_at=self.loaded_at,
            idle_since=self.idle_since,
            expires_at=self.expires_at,
        )

    async def _load(self) -> None:
        """One candidate after the other, until one loads; then the other replicas, for whom nobody waits."""
        began = time.monotonic()
        for candidate in self.spec.candidates:
            try:
                replica = self._replica(candidate, self._owner.grant(self, candidate))
                self._replicas = [replica]
                replica.begin_load()
                await replica.ready()
                break
            except NotReady as failure:
                self._replicas = []
                self._fall_through(candidate, failure)
        self.candidate = candidate
        self.loaded_at = time.time()
        self._owner.tell(Loaded(self.label, candidate, time.monotonic() - began))
        for _ in range(1, self.spec.replicas):
            further = self._replica(candidate, self._owner.grant(self, candidate))
            self._replicas.append(further)
            further.begin_load()
        if self.num_leases == 0:
            self._become_idle()
        else:
            self._owner.changed(self)

    def _fall_through(self, candidate: Candidate, failure: NotReady) -> None:
        """Raises the failure when there is no further candidate."""
        if candidate is self.spec.candidates[-1]:
            raise failure
        fallback = Fallback(candidate, failure.message)
        self._fallbacks.append(fallback)
        self._owner.tell(FellThrough(self.label, fallback))

    def _replica(self, candidate: Candidate, options: EngineOptions) -> Replica:
        return Replica(
            self.label,
            lambda: self._spawn(self.label, candidate, options),
            self._breaker,
            on_ready=lambda: self._owner.changed(self),
            on_died=lambda why: self._owner.tell(Died(self.label, why)),
            on_lost=self._lost_replica,
        )

    def _lost_replica(self, replica: Replica, why: NotReady) -> None:
        """During the load, `_load` finds out by itself."""
        if self.loaded_at is None or self._is_leaving:
            return
        self._replicas.remove(replica)
        if not self._replicas:
            self._owner.lost(self, why)

    async def _first_ready(self) -> ModelInfo:
        """Of the replicas: one that serves, else whichever does first. Raises NotReady when all fail."""
        up = next((replica.info for replica in self._replicas if replica.state is ModelState.READY), None)
        if up is not None:
            return up
        waiting = [asyncio.ensure_future(replica.ready()) for replica in self._replicas]
        if not waiting:
            raise self._leaving()
        try:
            for done in asyncio.as_completed(waiting):
                try:
                    return await done
                except NotReady as failure:
                    last = failure
            raise last
        finally:
            for task in waiting:
                task.cancel()

    def _loaded(self, loading: asyncio.Task[None]) -> None:
        """Also when nobody waits for it: a model that cannot be loaded must not look as if it were about to be."""
        if loading.cancelled() or (error := loading.exception()) is None:
            return
        if not isinstance(error, NotReady):
            log.error("%s could not be loaded", self.label, exc_info=error)
            error = NotReady(f"{self.label} could not be loaded: {type(error).__name__} {error}", code="load_failed")
        self._owner.lost(self, error)

    def _become_idle(self) -> None:
        if self.loaded_at is None or self._is_leaving:
            return
        self.idle_since = time.time()
        self._arm_expiry()
        self._owner.changed(self)

    def _arm_expiry(self) -> None:
        self._cancel_expiry()
        if self.pinned or self.keep_alive_s == FOREVER or self._is_leaving:
            return
        self.expires_at = time.time() + self.keep_alive_s
        self._expiry = asyncio.get_running_loop().call_later(self.keep_alive_s, self._owner.expired, self)

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self.expires_at = None

    def _leaving(self) -> NotReady:
        return NotReady(f"{self.label} is being unloaded. Retry in a moment.", code="unloading", retry_after_s=1.0)
