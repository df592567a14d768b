"""A model in memory: its replicas, its holders, and how long it stays without any. Decides nothing about other models."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable
from functools import partial
from typing import Any, Protocol

from runtime.pool.breaker import Breaker
from runtime.pool.failures import being_restarted, being_unloaded, not_loadable
from runtime.pool.generation import Answer, Generation, Inquiry
from runtime.pool.handle import WorkerFactory
from runtime.pool.keep_alive import KeepAlive
from runtime.pool.loaded_model import (
    Candidate,
    Died,
    Fallback,
    FellThrough,
    Loaded,
    LoadedModel,
    LoadSpec,
    ModelState,
    PoolEvent,
    UnloadReason,
)
from runtime.pool.replica import Replica, ReplicaSet
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import EngineOptions, ModelInfo, Submit

log = logging.getLogger("slmops.pool")

EXIT_S = 5.0  # the time that an idle worker gets to end


class Owner(Protocol):
    """The interface of the pool to a resident model."""

    def grant(self, model: ResidentModel, candidate: Candidate) -> EngineOptions:
        """The options with which each worker of this candidate loads. Raises NotReady when there is no room for it."""
        ...

    def changed(self, model: ResidentModel) -> None:
        """It became ready, busy or idle, or lost a replica."""
        ...

    def expired(self, model: ResidentModel) -> None:
        """Called when its keep-alive has ended."""
        ...

    def lost(self, model: ResidentModel, why: NotReady) -> None:
        """It cannot be loaded, or not any more."""
        ...

    def publish_event(self, event: PoolEvent) -> None: ...


class ResidentModel:
    """start_worker: starts each of its workers, wherever they run."""

    def __init__(self, spec: LoadSpec, start_worker: WorkerFactory, breaker: Breaker, owner: Owner) -> None:
        self.spec = spec
        self._start_worker = start_worker
        self._breaker = breaker
        self._owner = owner
        self._request_ids = itertools.count(1)
        self._replicas = ReplicaSet()
        self._loading: asyncio.Task[None] | None = None
        self._fallbacks: list[Fallback] = []
        self._failure: NotReady | None = None
        self.unload_reason: UnloadReason | None = None
        self.candidate: Candidate | None = None
        self.charge_bytes = 0  # what the memory budget counts for it; the ledger keeps these two
        self.kv_bytes = 0  # that each worker may use for KV
        self.loaded_at: float | None = None
        self._stay = KeepAlive(spec.keep_alive_s, pinned=spec.pinned, on_expired=lambda: owner.expired(self))

    @property
    def label(self) -> str:
        return self.spec.label

    @property
    def state(self) -> ModelState:
        if self.unload_reason is not None:
            return ModelState.UNLOADING
        if self.loaded_at is None:
            return ModelState.LOADING
        return ModelState.READY if self._replicas.serving else ModelState.RESTARTING

    @property
    def num_leases(self) -> int:
        return self._stay.num_leases

    @property
    def last_used(self) -> float:
        """Seconds of the monotonic clock."""
        return self._stay.last_used

    @property
    def pinned(self) -> bool:
        return self._stay.pinned

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
        while True:
            if self._failure is not None:
                raise self._failure
            if self.unload_reason is not None:
                raise being_unloaded(self.label)
            if serving := self._replicas.serving:
                return serving[0].worker().info
            await asyncio.wait(self._loads(), return_when=asyncio.FIRST_COMPLETED)

    def new_request_id(self) -> int:
        return next(self._request_ids)

    def submit(self, message: Submit) -> Generation:
        """Submits to the replica that suits the prompt best.

        Raises EngineDead when there is none at the moment, NotReady when for good.
        """
        self._check_serves()
        return self._replicas.submit(message)

    def inquire(self, message: Inquiry) -> Awaitable[Answer]:
        """On the replica with the least to do. Raises as `submit`."""
        self._check_serves()
        return self._replicas.inquire(message)

    def hold(self) -> None:
        self._stay.hold()
        if self.num_leases == 1:
            self._owner.changed(self)

    def release(self) -> None:
        self._stay.release()
        if self.num_leases == 0:
            self._become_idle()

    def keep(self, keep_alive_s: float) -> None:
        """Sets how long it stays after its last request, from now on."""
        self._stay.change(seconds=keep_alive_s)

    def pin(self, pinned: bool) -> None:
        self._stay.change(pinned=pinned)

    def leave(self, unload_reason: UnloadReason) -> None:
        """From now on it takes no requests, and waiting ones fail. `unload` must follow."""
        self.unload_reason = unload_reason
        self._stay.stop()

    async def unload(self, grace_s: float, reason: NotReady, *, once_idle: bool = False) -> None:
        """Lets open requests finish for grace_s, then ends them with `reason`, and the workers with them.

        once_idle: first waits, as part of the grace, until no lease is open, so that also what is about to be submitted is served.
        May be called again with a shorter grace.
        """
        if self._loading is not None and not self._loading.done():
            self._loading.cancel()
            await asyncio.wait([self._loading])
        if once_idle:
            grace_s = await self._wait_idle(grace_s)
        else:
            self._stay.nobody.set()
        await self._replicas.unload(grace_s, reason)

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
            keep_alive_s=self._stay.seconds,
            loaded_at=self.loaded_at,
            idle_since=self._stay.idle_since,
            expires_at=self._stay.expires_at,
        )

    async def _load(self) -> None:
        """Tries the candidates in order, until one loads; then starts the other replicas, without waiting for them."""
        began = time.monotonic()
        for candidate in self.spec.candidates:
            try:
                options = self._owner.grant(self, candidate)
                loading = self._begin_replica(candidate, options).loading
                await asyncio.wait([loading])
                loading.result()
                break
            except NotReady as failure:
                self._replicas = ReplicaSet()
                self._fall_through(candidate, failure)
        for _ in range(1, self.spec.replicas):
            self._begin_replica(candidate, options)
        self.candidate = candidate
        self.loaded_at = time.time()
        self._owner.publish_event(Loaded(self.label, candidate, time.monotonic() - began))
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
        self._owner.publish_event(FellThrough(self.label, fallback))

    def _begin_replica(self, candidate: Candidate, options: EngineOptions) -> Replica:
        replica = Replica(
            self.label,
            partial(self._start_worker, self.label, candidate.load(options)),
            self._breaker,
            on_ready=lambda: self._owner.changed(self),
            on_died=lambda why: self._owner.publish_event(Died(self.label, why)),
            on_lost=self._lost_replica,
        )
        self._replicas.add(replica)
        replica.begin_load()
        return replica

    def _lost_replica(self, replica: Replica, why: NotReady) -> None:
        """Handles a lost replica. During the load, `_load` notices it."""
        if self.loaded_at is None or self.unload_reason is not None:
            return
        self._replicas.remove(replica)
        if self._replicas:
            log.error("%s continues with %d of %d replicas: %s", self.label, len(self._replicas), self.spec.replicas, why)
            self._owner.changed(self)
        else:
            self._lose(why)

    def _lose(self, why: NotReady) -> None:
        self._failure = why
        self._stay.stop()
        self._owner.lost(self, why)

    def _loads(self) -> list[asyncio.Task[Any]]:
        """What may make it ready."""
        if self.loaded_at is None:
            assert self._loading is not None
            return [self._loading]
        return [*self._replicas.loads]

    def _check_serves(self) -> None:
        """Raises the reason why no replica serves."""
        if self._replicas.serving:
            return
        if self._failure is not None:
            raise self._failure
        raise being_unloaded(self.label) if self.unload_reason is not None else being_restarted(self.label)

    async def _wait_idle(self, grace_s: float) -> float:
        """Waits so long for the open leases. Returns what the workers get to end by themselves."""
        try:
            async with asyncio.timeout(grace_s):
                await self._stay.nobody.wait()
        except TimeoutError:
            return 0.0
        return EXIT_S

    def _loaded(self, loading: asyncio.Task[None]) -> None:
        """Runs even if no caller waits: a model that cannot be loaded must not stay in the state of loading."""
        if loading.cancelled() or (error := loading.exception()) is None:
            return
        if not isinstance(error, NotReady):
            log.error("%s could not be loaded", self.label, exc_info=error)
        self._lose(not_loadable(self.label, error))

    def _become_idle(self) -> None:
        if self.loaded_at is None or self.unload_reason is not None or self._failure is not None:
            return
        self._stay.begin_idle()
        self._owner.changed(self)
