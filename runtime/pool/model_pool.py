"""The models in memory: loads on demand and shares each load, makes room by evicting, unloads what idles, shares out the cores.

Who loads next is decided in `load_queue`, what has room in `capacity`, who computes with how many threads in `core_sharing`; here
it is carried out. All methods belong to one event loop. Knows no registry, no HTTP, and not where workers run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from runtime.pool.breaker import Breaker
from runtime.pool.capacity import Fits, MustEvict, NeverFits, PoolLimits, Verdict
from runtime.pool.core_sharing import SETTLE_S, share_for_newcomers, share_out
from runtime.pool.failures import draining, no_room, still_loading
from runtime.pool.handle import WorkerFactory
from runtime.pool.lease import Lease
from runtime.pool.ledger import Ledger
from runtime.pool.load_queue import LoadQueue
from runtime.pool.loaded_model import Candidate, Left, LoadedModel, LoadFailed, LoadSpec, PoolEvent, UnloadReason
from runtime.pool.present_models import PresentModels
from runtime.pool.resident_model import EXIT_S, ResidentModel
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import EngineOptions

Listener = Callable[[PoolEvent], None]


class ModelPool:
    """listeners: called for everything that happens to a model. start_worker: starts every worker of every model.

    clock: by which attempts to load a model that fails are spaced.
    """

    def __init__(self, limits: PoolLimits, start_worker: WorkerFactory, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._start_worker = start_worker
        self.listeners: list[Listener] = []
        self._models = PresentModels()
        self._unloads: set[asyncio.Task[None]] = set()
        self._queue = LoadQueue(self)
        self._ledger = Ledger(self.limits.budget)
        self._breakers: dict[str, Breaker] = {}
        self._failures: dict[str, NotReady] = {}
        self._settling: asyncio.TimerHandle | None = None
        self._closing = False
        self._clock = clock

    # ---- calls from outside ----

    async def acquire(self, spec: LoadSpec, *, timeout_s: float, keep_alive_s: float | None = None, principal: str = "") -> Lease:
        """Joins or starts a load, when its turn has come. keep_alive_s: holds from now on, instead of the spec's.

        principal: the caller's id, for fair turns among callers.

        Raises NotReady with the reason: no room, still loading after timeout_s, draining, or failed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._check_open()
            model = await self._queue.place(spec, deadline, principal)
            if keep_alive_s is not None:
                model.keep(keep_alive_s)
            model.hold()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    return Lease(model, await model.ready())
            except BaseException as failure:
                model.release()
                if isinstance(failure, TimeoutError):
                    raise still_loading(spec.label, timeout_s) from None
                if model.unload_reason in (None, UnloadReason.REQUESTED) or not isinstance(failure, NotReady):
                    raise
                # it has made way meanwhile, for another model or for its own replacement: once more

    async def unload(self, label: str, *, grace_s: float = 0.0) -> bool:
        """Drains for grace_s, then ends the workers. False when not loaded."""
        unloads = [self._begin_unload(model, UnloadReason.REQUESTED, grace_s) for model in reversed(self._models.of(label))]
        await asyncio.gather(*map(asyncio.shield, unloads))
        return bool(unloads)

    async def reload(self, spec: LoadSpec, *, timeout_s: float, grace_s: float) -> None:
        """Reloads the model by spec, without a failed request: the old one serves until the new one can, then for grace_s.

        Idle models make room for both. Where there is none, the old one leaves first, when its requests are done, and new ones
        wait, each for as long as its acquire may. Raises NotReady when the new one cannot load.
        """
        self._check_open()
        old = self._models.find(spec.label)
        if self._models.is_arriving(spec.label):
            raise NotReady(f"{spec.label} is being reloaded already. Retry when that is done.", code="model_loading")
        if old is None:
            self.reset(spec.label)  # what broke it may have been what is changed now
            self._queue.respecify(spec)
            (await self.acquire(spec, timeout_s=timeout_s)).release()
            return
        beside = self._ledger.plan(spec, self._models.residents(), replaces=True)
        if isinstance(beside, MustEvict) and spec.label not in beside.labels:
            await asyncio.gather(*(asyncio.shield(self._evict(label)) for label in beside.labels))
            return await self.reload(spec, timeout_s=timeout_s, grace_s=grace_s)
        if isinstance(beside, Fits):
            await self._replace(old, self._begin_load(spec, beside.charge_bytes, beside=True), timeout_s, grace_s)
            return
        alone = self._ledger.plan(spec, self._models.residents(without=old), replaces=True)
        if isinstance(alone, NeverFits):
            raise no_room(alone.arithmetic)
        self._queue.respecify(spec)
        self._begin_unload(old, UnloadReason.REPLACED, grace_s, once_idle=True)
        (await self.acquire(spec, timeout_s=timeout_s + grace_s)).release()

    def pin(self, label: str, pinned: bool) -> bool:
        """False when not loaded."""
        found = self._models.of(label)
        for model in found:
            model.pin(pinned)
        self._queue.look()
        return bool(found)

    def reset(self, label: str) -> None:
        """Closes the breaker: the next request tries to load again."""
        self._breaker(label).reset()
        self._failures.pop(label, None)

    def spec_of(self, label: str) -> LoadSpec | None:
        """The spec of the loaded model; None when it is not loaded."""
        model = self._models.find(label)
        return None if model is None else model.spec

    def broken(self) -> dict[str, NotReady]:
        """Models that failed repeatedly and are not tried for now, and why."""
        return {label: breaker.refusal() for label, breaker in self._breakers.items() if breaker.is_open}

    def load_failure(self, label: str) -> NotReady | None:
        """Why the last load of this model failed; None when it did not, or when another has begun since."""
        return self._failures.get(label)

    def loaded(self) -> tuple[LoadedModel, ...]:
        """Every model that is loaded, or on its way in or out; while a model is replaced, both."""
        return tuple(model.view() for model in self._models)

    def waiting(self) -> tuple[str, ...]:
        """Models whose load waits for room, the next one first."""
        return self._queue.labels

    async def close(self, *, grace_s: float) -> None:
        """Lets requests finish for grace_s, ends the others with NotReady, ends every worker. Later acquires raise NotReady."""
        self._closing = True
        self._queue.fail_all(draining())
        given_longer = self._models.leaving
        for model in [each for each in self._models if each not in given_longer]:
            self._begin_unload(model, UnloadReason.CLOSED, grace_s)
        await asyncio.gather(*(model.unload(grace_s, draining()) for model in given_longer))
        if self._unloads:
            await asyncio.wait(self._unloads)

    # ---- callbacks of the models ----

    def grant(self, model: ResidentModel, candidate: Candidate) -> EngineOptions:
        kv_bytes = self._ledger.grant(model, candidate)
        options = model.spec.options
        threads = options.threads or share_for_newcomers(self.limits.num_cores, self._models.serving, model.spec.replicas)
        return msgspec.structs.replace(options, threads=threads, kv_budget_bytes=kv_bytes or options.kv_budget_bytes)

    def changed(self, model: ResidentModel) -> None:
        self._ledger.measure(model)
        self._share_out()
        if not model.is_busy:
            self._share_out_later()
        self._queue.look()

    def expired(self, model: ResidentModel) -> None:
        if self._models.serves(model) and not model.is_busy:
            self._begin_unload(model, UnloadReason.EXPIRED, EXIT_S)

    def lost(self, model: ResidentModel, why: NotReady) -> None:
        if self._models.serves(model):
            self._failures[model.label] = why
            if why.code == "load_failed":
                self._breaker(model.label).failed(why.message)
        self._models.remove(model)
        self.publish_event(LoadFailed(model.label, why.message))
        self._share_out()
        self._queue.look()

    def publish_event(self, event: PoolEvent) -> None:
        for listener in self.listeners:
            listener(event)

    # ---- the queue's interface ----

    def find(self, label: str) -> ResidentModel | None:
        return self._models.find(label)

    def why_not(self, label: str) -> NotReady | None:
        breaker = self._breaker(label)
        return breaker.refusal() if breaker.pause_s > 0 else None

    def plan(self, spec: LoadSpec) -> Verdict:
        return self._ledger.plan(spec, self._models.residents())

    def no_room(self, spec: LoadSpec) -> NotReady:
        return self._ledger.no_room(spec, self._models.residents())

    def begin_load(self, spec: LoadSpec, charge_bytes: int) -> ResidentModel:
        self._failures.pop(spec.label, None)
        return self._begin_load(spec, charge_bytes, beside=False)

    def evict(self, label: str) -> None:
        self._evict(label)

    # ---- coming and going ----

    def _begin_load(self, spec: LoadSpec, charge_bytes: int, *, beside: bool) -> ResidentModel:
        """Begins a load, whose memory counts from now on. beside: it will take the place of the one that serves."""
        model = ResidentModel(spec, self._start_worker, self._breaker(spec.label), self)
        self._models.add(model, beside=beside)
        model.charge_bytes = charge_bytes
        model.begin_load()
        return model

    def _evict(self, label: str) -> asyncio.Task[None]:
        model = self._models.find(label)
        assert model is not None  # only what is idle in memory is chosen
        return self._begin_unload(model, UnloadReason.EVICTED, EXIT_S)

    async def _replace(self, old: ResidentModel, new: ResidentModel, timeout_s: float, grace_s: float) -> None:
        """Once the new one is ready, unless the old one has left already: then it has its place."""
        new.hold()  # it must not expire before it has its place
        try:
            async with asyncio.timeout(timeout_s):
                await new.ready()
            if self._models.arrives(new):
                self._begin_unload(old, UnloadReason.REPLACED, grace_s, once_idle=True)
        except TimeoutError:
            raise still_loading(new.label, timeout_s) from None
        finally:
            if self._models.arrives(new):
                self._begin_unload(new, UnloadReason.REQUESTED, 0.0)
            new.release()

    def _begin_unload(
        self, model: ResidentModel, unload_reason: UnloadReason, grace_s: float, *, once_idle: bool = False
    ) -> asyncio.Task[None]:
        """From now on the model takes no requests; its memory counts until its workers have ended."""
        self._models.begin_leaving(model)
        model.leave(unload_reason)
        task = asyncio.create_task(
            self._finish_unload(model, unload_reason, grace_s, once_idle=once_idle), name=f"unload {model.label}"
        )
        self._unloads.add(task)
        task.add_done_callback(self._unloads.discard)
        return task

    async def _finish_unload(self, model: ResidentModel, unload_reason: UnloadReason, grace_s: float, *, once_idle: bool) -> None:
        unloaded = NotReady(f"{model.label} was unloaded while the request ran. Retry to load it again.", retry_after_s=1.0)
        try:
            await model.unload(grace_s, draining() if unload_reason is UnloadReason.CLOSED else unloaded, once_idle=once_idle)
        finally:
            self._models.end_leaving(model)
            self.publish_event(Left(model.label, unload_reason))
            self._share_out()
            self._queue.look()

    def _share_out(self) -> None:
        if not self._closing:
            share_out(self.limits.num_cores, self._models.serving)

    def _share_out_later(self) -> None:
        """Gives the cores of a model that has just become idle to others later, unless it is used again."""
        if self._settling is not None:
            self._settling.cancel()
        self._settling = asyncio.get_running_loop().call_later(SETTLE_S + 0.01, self._share_out)

    def _breaker(self, label: str) -> Breaker:
        return self._breakers.setdefault(label, Breaker(label, self._clock))

    def _check_open(self) -> None:
        if self._closing:
            raise draining()
