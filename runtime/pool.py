"""The models in memory: loads on demand and shares each load, makes room by evicting, unloads what idles, shares out the cores.

Decisions are pure and made elsewhere (`capacity`, `core_shares`); here they are carried out. All methods belong to one event loop.
Knows no registry and no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from runtime.breaker import Breaker
from runtime.capacity import Fits, NeverFits, Resident
from runtime.core_sharing import SETTLE_S, share_for_newcomer, share_out
from runtime.errors import NotReady
from runtime.execution_provider import HOST
from runtime.lease import Lease
from runtime.ledger import Ledger, resident
from runtime.load_spec import Candidate, LoadSpec
from runtime.loaded_model import Departure, Left, LoadedModel, LoadFailed, ModelState, PoolEvent
from runtime.messages import EngineOptions, Load
from runtime.pool_limits import PoolLimits
from runtime.resident_model import EXIT_S, ResidentModel
from runtime.waiting_loads import WaitingLoads
from runtime.worker_process import WorkerProcess

log = logging.getLogger("slmops.pool")

TURN_S = 2.0  # a model serves at least so long before it must make room for one that waits
Listener = Callable[[PoolEvent], None]


class ModelPool:
    """listener: told of everything that happens to a model. What a worker prints goes to the gateway's own standard error."""

    def __init__(self, limits: PoolLimits | None = None, listener: Listener | None = None) -> None:
        self.limits = limits or PoolLimits()
        self.listeners: list[Listener] = [listener] if listener else []
        self._models: dict[str, ResidentModel] = {}
        self._leaving: list[ResidentModel] = []
        self._arriving: list[ResidentModel] = []  # replacements that load beside what they replace
        self._waiting = WaitingLoads()
        self._yielding: frozenset[str] = frozenset()  # busy models that take nothing new, so that a waiting load gets its turn
        self._breakers: dict[str, Breaker] = {}
        self._ledger = Ledger(self.limits.budget)
        self._failures: dict[str, NotReady] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    # ---- asked from outside ----

    async def acquire(self, spec: LoadSpec, *, timeout_s: float, keep_alive_s: float | None = None) -> Lease:
        """Joins or starts a load, when its turn has come. keep_alive_s: holds from now on, instead of the spec's.

        Raises NotReady: no room, still loading after timeout_s, draining, or failed; it says why.
        """
        self._check_open(spec.label)
        deadline = time.monotonic() + timeout_s
        while True:
            model = await self._placed(spec, deadline)
            if keep_alive_s is not None:
                model.keep(keep_alive_s)
            model.hold()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    info = await model.ready()
            except TimeoutError:
                model.let_go()
                raise _still_loading(spec.label, timeout_s) from None
            except BaseException:
                model.let_go()
                raise
            if model.state is not ModelState.UNLOADING:
                return Lease(model, info)
            model.let_go()  # it was told to leave meanwhile

    async def unload(self, label: str, *, grace_s: float = 0.0) -> bool:
        """Drains for grace_s, then ends the workers. False when not loaded."""
        model = self._models.get(label)
        if model is None:
            return False
        await asyncio.shield(self._dismiss(model, Departure.ASKED, grace_s))
        return True

    async def reload(self, spec: LoadSpec, *, timeout_s: float, grace_s: float) -> None:
        """Loads the model anew, as spec says, without a failed request: the old one serves until the new one can.

        Where both have no room, the old one leaves first, and requests wait. Raises NotReady when the new one cannot load.
        """
        self._check_open(spec.label)
        old = self._models.get(spec.label)
        new = self._new_model(spec)
        if old is not None and self._fits_beside(spec):
            self._arriving.append(new)
            new.begin_load()
            try:
                async with asyncio.timeout(timeout_s):
                    await new.ready()
            except BaseException as failure:
                await asyncio.shield(self._dismiss(new, Departure.REPLACED, 0.0))
                if isinstance(failure, TimeoutError):
                    raise _still_loading(spec.label, timeout_s) from None
                raise
            finally:
                self._arriving.remove(new)
            self._dismiss(old, Departure.REPLACED, grace_s, once_idle=True)
            self._models[spec.label] = new
            self.changed(new)
            return
        if old is not None:
            await asyncio.shield(self._dismiss(old, Departure.REPLACED, grace_s, once_idle=True))
        (await self.acquire(spec, timeout_s=timeout_s)).release()

    def pin(self, label: str, pinned: bool) -> bool:
        """False when not loaded."""
        model = self._models.get(label)
        if model is not None:
            model.pin(pinned)
        return model is not None

    def reset(self, label: str) -> None:
        """Closes the breaker: the next request tries to load again."""
        self._breakers.pop(label, None)
        self._failures.pop(label, None)

    def spec_of(self, label: str) -> LoadSpec | None:
        """What the loaded model was asked to be; None when it is not loaded."""
        model = self._models.get(label)
        return None if model is None else model.spec

    def load_failure(self, label: str) -> NotReady | None:
        """Why the last load of this model failed; None when it did not, or when another has begun since."""
        return self._failures.get(label)

    def loaded(self) -> tuple[LoadedModel, ...]:
        """Every model that is loaded, or on its way in or out."""
        return tuple(model.view() for model in (*self._models.values(), *self._arriving, *self._leaving))

    def waiting(self) -> tuple[str, ...]:
        """Models whose load waits for room, the next one first."""
        return self._waiting.labels

    async def close(self, *, grace_s: float) -> None:
        """Lets requests finish for grace_s, ends the others with NotReady, ends every worker. Later acquires raise NotReady."""
        self._closing = True
        self._waiting.fail_all(_draining())
        models = (*self._models.values(), *self._arriving)
        await asyncio.gather(*(model.unload(grace_s, _draining()) for model in models))
        self._models.clear()
        self._arriving.clear()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # ---- asked and told by the models ----

    def grant(self, model: ResidentModel, candidate: Candidate) -> EngineOptions:
        verdict = self._ledger.plan_beside(model.spec, candidate, self._residents(without=model))
        if not isinstance(verdict, Fits):
            raise _no_room(verdict.arithmetic)
        self._ledger.charge(model, candidate, verdict.kv_bytes)
        threads = model.spec.options.threads or share_for_newcomer(self.limits.num_cores, self._models.values())
        kv_bytes = max(1, verdict.kv_bytes) if candidate.place == HOST else model.spec.options.kv_budget_bytes
        return msgspec.structs.replace(model.spec.options, kv_budget_bytes=kv_bytes, threads=threads)

    def changed(self, model: ResidentModel) -> None:
        if self._closing:
            return
        self._ledger.measure(model)
        self._share_out()
        if not model.is_busy:
            asyncio.get_running_loop().call_later(SETTLE_S + 0.01, self._share_out)
            self._pump()

    def expired(self, model: ResidentModel) -> None:
        if self._models.get(model.label) is model and not model.is_busy:
            self._dismiss(model, Departure.EXPIRED, EXIT_S)

    def lost(self, model: ResidentModel, why: NotReady) -> None:
        log.error("%s failed: %s", model.label, why)
        if self._models.get(model.label) is model:
            del self._models[model.label]
        self._failures[model.label] = why
        if why.code == "load_failed":
            self._breakers[model.label].failed(why.message)
        self.tell(LoadFailed(model.label, why.message))
        self._pump()
        self._share_out()

    def tell(self, event: PoolEvent) -> None:
        for listener in self.listeners:
            listener(event)

    # ---- room ----

    async def _placed(self, spec: LoadSpec, deadline: float) -> ResidentModel:
        """The model, loading at least. Raises NotReady: no room, now or ever."""
        model = self._models.get(spec.label)
        if model is not None and spec.label not in self._yielding:
            return model
        waiting = self._waiting.join(spec)
        self._pump()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.shield(waiting.placed)
        except TimeoutError:
            raise _no_room(waiting.arithmetic, retry_after_s=2.0) from None
        finally:
            if self._waiting.leave(waiting):
                self._pump()

    def _pump(self) -> None:
        """Places the loads that wait, first come, first served; makes room for the first of them."""
        self._yielding = frozenset()
        while not self._closing and (waiting := self._waiting.first) is not None:
            label = waiting.spec.label
            verdict = self._ledger.plan(waiting.spec, self._residents())
            if (model := self._models.get(label)) is not None:
                self._waiting.place(waiting, model)
            elif isinstance(verdict, NeverFits):
                self._waiting.refuse(waiting, _no_room(verdict.arithmetic))
            elif isinstance(verdict, Fits) and not verdict.evict:
                self._waiting.place(waiting, self._begin_load(waiting.spec))
            elif isinstance(verdict, Fits):
                for evicted in verdict.evict:
                    self._dismiss(self._models[evicted], Departure.EVICTED, EXIT_S)
                return  # and is called again when they are gone
            else:
                waiting.arithmetic = verdict.arithmetic
                self._yielding = frozenset(filter(self._has_had_its_turn, verdict.busy))
                return

    def _has_had_its_turn(self, label: str) -> bool:
        """Else looks again when it has."""
        loaded_at = self._models[label].loaded_at
        left_s = TURN_S if loaded_at is None else loaded_at + TURN_S - time.time()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._pump)
        return left_s <= 0

    def _fits_beside(self, spec: LoadSpec) -> bool:
        """Now, with everything that is loaded, the same model too."""
        return isinstance(self._ledger.plan_beside(spec, spec.candidates[0], self._residents()), Fits)

    def _residents(self, *, without: ResidentModel | None = None) -> list[Resident]:
        staying = [resident(each, is_leaving=False) for each in (*self._models.values(), *self._arriving) if each is not without]
        return staying + [resident(each, is_leaving=True) for each in self._leaving if each is not without]

    # ---- coming and going ----

    def _begin_load(self, spec: LoadSpec) -> ResidentModel:
        model = self._models[spec.label] = self._new_model(spec)
        self._failures.pop(spec.label, None)
        model.begin_load()
        return model

    def _new_model(self, spec: LoadSpec) -> ResidentModel:
        breaker = self._breakers.setdefault(spec.label, Breaker(spec.label))
        return ResidentModel(spec, self._spawn, breaker, self)

    def _dismiss(
        self, model: ResidentModel, departure: Departure, grace_s: float, *, once_idle: bool = False
    ) -> asyncio.Task[None]:
        """From this moment nobody gets the model; its memory counts until its workers are gone."""
        if self._models.get(model.label) is model:
            del self._models[model.label]
        self._leaving.append(model)
        task = asyncio.create_task(self._dismissed(model, departure, grace_s, once_idle=once_idle), name=f"unload {model.label}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _dismissed(self, model: ResidentModel, departure: Departure, grace_s: float, *, once_idle: bool = False) -> None:
        reason = NotReady(f"{model.label} was unloaded while the request ran. Retry to load it again.", retry_after_s=1.0)
        try:
            await model.unload(grace_s, reason, once_idle=once_idle)
        finally:
            self._leaving.remove(model)
        log.info("unloaded %s (%s)", model.label, departure)
        self.tell(Left(model.label, departure))
        self._share_out()
        self._pump()

    async def _spawn(self, label: str, candidate: Candidate, options: EngineOptions) -> WorkerProcess:
        load = Load(engine=candidate.engine, folder=str(candidate.folder), options=options, provider=candidate.provider)
        return await WorkerProcess.start(load, label, self.limits.patience)

    def _share_out(self) -> None:
        if not self._closing:
            share_out(self.limits.num_cores, self._models.values())

    def _check_open(self, label: str) -> None:
        """Raises NotReady when nothing can be loaded."""
        if self._closing:
            raise _draining()
        breaker = self._breakers.get(label)
        if breaker is not None and breaker.is_open:
            raise breaker.refusal()


def _draining() -> NotReady:
    return NotReady("The server is shutting down. Retry in a moment.", code="draining", retry_after_s=5.0)


def _still_loading(label: str, timeout_s: float) -> NotReady:
    return NotReady(f"{label} is still loading after {timeout_s:g} s. Retry in a moment.", code="model_loading", retry_after_s=2.0)


def _no_room(arithmetic: str, *, retry_after_s: float | None = None) -> NotReady:
    remedy = "Raise memory_budget, unload or unpin another model, or lower num_slots, context_length or kv_budget_bytes."
    return NotReady(f"{arithmetic}. {remedy}", code="insufficient_memory", retry_after_s=retry_after_s)
