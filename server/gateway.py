"""The way from a validated request to running generations: name, version, lease, submissions. Also: are we ready?

Knows the pool and the registry's names; knows no HTTP and no wire format.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from msgspec import structs
from msgspec.msgpack import encode

from model_registry.errors import ModelNotFound, RegistryError
from model_registry.records import Capability
from runtime.capabilities import Need, check_allowed, check_loaded, needs_of
from runtime.errors import InvalidRequest, NotReady, RuntimeFailure
from runtime.pool.lease import Lease
from runtime.pool.loaded_model import LoadedModel, ModelState
from runtime.pool.model_pool import ModelPool
from runtime.request import Prompt, SamplingParams
from server.answer_parts import AnswerParsing
from server.durations import keep_alive_s
from server.inference import Answer, Inference
from server.lifecycle import Lifecycle
from server.load_plans import LoadPlans
from server.metered import MeteredGeneration
from server.metrics import Metrics
from server.model_settings import ModelSettings
from server.principal import AccessScope, InsufficientScope
from server.request_record import RequestRecord
from server.served_models import ServedModel, ServedModels
from server.settings import Settings

_LASTING = ("insufficient_memory", "no_provider")  # refusals that do not pass by themselves, unless they say when
_MOST_COPIED_BYTES = 32 << 20  # 128 choices of 256 KiB
_HANG_S = 2.0  # an engine that ends no late request for so long hangs
T = TypeVar("T")
_log = logging.getLogger("slmops.gateway")


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What any dialect asks: num_choices answers to each prompt, all with the same parameters but for the seed.

    Choices are numbered prompt by prompt. A seed is that of a prompt's first choice; the next take the numbers after it.
    keep_alive_s: how long the model stays loaded after this request and those to come; None changes nothing.
    """

    prompts: Sequence[Prompt]
    params: SamplingParams
    priority: int = 0
    num_choices: int = 1
    return_prompt_text: bool = False
    return_prompt_token_ids: bool = False
    keep_alive_s: float | None = None

    def submissions(self) -> Iterator[tuple[Prompt, SamplingParams]]:
        """One per choice, in order."""
        for prompt in self.prompts:
            for index in range(self.num_choices):
                yield prompt, self._params_of(index)

    def _params_of(self, index: int) -> SamplingParams:
        if self.params.seed is None or index == 0:
            return self.params
        return structs.replace(self.params, seed=(self.params.seed + index) % 2**64)


class Gateway:
    """Constructed once per app; every method belongs to the app's event loop."""

    def __init__(
        self,
        settings: Settings,
        models: ServedModels,
        pool: ModelPool,
        plans: LoadPlans,
        metrics: Metrics,
        lifecycle: Lifecycle,
    ) -> None:
        self.settings = settings
        self.models = models
        self.metrics = metrics
        self.pool = pool
        self._plans = plans
        self._lifecycle = lifecycle
        self._is_warming = False
        self._groups = itertools.count(1)  # of our own: replicas number what they get each for itself
        self._refusals: dict[str, RuntimeFailure] = {}  # why a model could not even begin to load when it was last asked for

    async def resolve(self, name: str | None) -> ServedModel:
        """The model of that name, or the default one: from memory, microseconds. Raises ModelNotFound."""
        return await self.look_up(lambda: self.models.resolve(name or self.settings.model))

    async def look_up(self, read: Callable[[], T]) -> T:
        """What `read` finds among the models. Before it raises ModelNotFound, it reads what other processes have written."""
        try:
            return read()
        except ModelNotFound:
            await self.models.refresh()
            return read()

    async def infer(self, model: ServedModel, request: InferenceRequest, record: RequestRecord) -> Inference:
        """Waits for the model and for the first event. The caller closes the inference.

        Raises RuntimeFailure, InsufficientScope.
        """
        if request.priority < 0 and not record.principal.allows(AccessScope.ADMIN):
            raise InsufficientScope(record.principal, [AccessScope.ADMIN], "priority")
        self._check_count(request, model)
        record.model = model.label
        needs = needs_of(request.prompts[0], request.params, model.adapter)
        lease = await self.acquire(model, request.keep_alive_s, record.principal.id, needs)
        inference = self._submitted(model, lease, request, record)
        try:
            await inference.begin()
        except BaseException:
            inference.close()
            raise
        return inference

    async def answer(self, model: ServedModel, request: InferenceRequest, record: RequestRecord) -> list[Answer]:
        """All choices, whole. Raises RuntimeFailure."""
        inference = await self.infer(model, request, record)
        try:
            return await inference.answers()
        finally:
            inference.close()

    async def acquire(
        self, model: ServedModel, keep_alive_s: float | None = None, principal: str = "", needs: Sequence[Need] = ()
    ) -> Lease:
        """A lease on the model, loaded now if it was not. principal: who requests it. needs: what the request needs of it.

        Raises NotReady, EngineDead, and InvalidRequest for a need that the model cannot meet.
        """
        check_allowed(model.label, model.capabilities, needs)
        self.metrics.of_model(model.label)
        try:
            spec = self.pool.spec_of(model.label) or await self._plans.spec(model)
            timeout_s = self.settings.load_timeout_s
            lease = await self.pool.acquire(spec, timeout_s=timeout_s, keep_alive_s=keep_alive_s, principal=principal)
        except RuntimeFailure as failure:
            if failure.code in _LASTING and not failure.retry_after_s:
                self._refusals[model.label] = failure
            raise _with_remedy(failure, model.label) from None
        self._refusals.pop(model.label, None)
        try:
            check_loaded(model.label, lease.info, needs)
        except RuntimeFailure:
            lease.release()
            raise
        return lease

    async def load(self, model: ServedModel, changes: ModelSettings) -> Lease:
        """As `acquire`; keep_alive and pin of the changes hold from now on, whether it was loaded or not."""
        self._plans.change(model.label, changes)
        lease = await self.acquire(model, None if changes.keep_alive is None else keep_alive_s(changes.keep_alive))
        if changes.pin is not None:
            self.pool.pin(model.label, changes.pin)
        return lease

    async def reload(self, model: ServedModel, changes: ModelSettings) -> Lease:
        """A lease on the model, loaded anew with these settings while requests go on. Raises NotReady: it has those it had."""
        take_back = self._plans.change(model.label, changes)
        try:
            spec = await self._plans.spec(model)
            await self.pool.reload(spec, timeout_s=self.settings.load_timeout_s, grace_s=self.settings.request_timeout_s)
        except BaseException as failure:
            take_back()
            raise _with_remedy(failure, model.label) if isinstance(failure, RuntimeFailure) else failure from None
        return await self.acquire(model)

    async def warm_up(self) -> None:
        """Loads the default model, so that its first request need not wait, then those that are pinned.

        A failure is logged; when it is the default model's, we are not ready.
        """
        self._is_warming = True
        try:
            await self._warm_up(None)
        finally:
            self._is_warming = False
        for name in await self._pinned():
            await self._warm_up(name)

    async def _pinned(self) -> list[str]:
        """By the settings. A table of settings for a model that is not here is told, since nothing else would tell of it."""
        known = []
        for name, settings in self.settings.models.items():
            try:
                await self.resolve(name)
            except RegistryError as failure:
                _log.warning("settings for an unknown model", extra={"fields": {"model": name, "why": str(failure)}})
            else:
                known += [name] if settings.pin else []
        return known

    async def _warm_up(self, name: str | None) -> None:
        try:
            model = await self.resolve(name)
            (await self.acquire(model)).release()
            _log.info("model ready", extra={"fields": {"model": model.label}})
        except (RuntimeFailure, RegistryError) as failure:
            _log.warning("model not ready", extra={"fields": {"model": name or self.settings.model, "why": str(failure)}})

    def why_not_ready(self) -> str | None:
        """None when the default model answers, or would after a load; else the reason."""
        if not self._lifecycle.is_serving:
            return "The server is shutting down."
        try:
            label = self.models.resolve(self.settings.model).label
        except RegistryError as failure:
            return str(failure)
        states = {each.state for each in self.pool.loaded() if each.spec.label == label}  # two, while it is reloaded
        if ModelState.READY in states:
            return None
        if self._is_warming or states & {ModelState.LOADING, ModelState.RESTARTING}:
            return f"The default model {label} is loading."
        last = self.pool.load_failure(label) or self._refusals.get(label)
        return None if last is None else _with_remedy(last, label).message

    def loaded(self) -> tuple[LoadedModel, ...]:
        return self.pool.loaded()

    def capabilities_of(self, model: ServedModel) -> frozenset[Capability]:
        """Of the model as it is loaded; else what its version allows."""
        return next((each.capabilities for each in self.loaded() if each.spec.label == model.label), model.capabilities)

    async def unload(self, name: str, *, grace_s: float = 0.0) -> Sequence[str]:
        """Ends the workers of every loaded version of that name, or of the one that `name:number` or `name:alias` means."""
        meant = {name, (await self.resolve(name)).label} if ":" in name and not self._is_loaded(name) else {name}
        doomed = [each.spec.label for each in self.loaded() if meant & {each.spec.label, each.spec.label.rpartition(":")[0]}]
        return [label for label in doomed if await self.pool.unload(label, grace_s=grace_s)]

    def _is_loaded(self, label: str) -> bool:
        return any(each.spec.label == label for each in self.loaded())

    def _check_count(self, request: InferenceRequest, model: ServedModel) -> None:
        num_sequences = len(request.prompts) * request.num_choices
        if num_sequences == 1:
            return
        if request.num_choices > 1:
            _check_copies(request)
        options = self._plans.settings_of(model.label).engine_options()
        capacity = options.num_slots + options.max_waiting
        if num_sequences > capacity:
            asked = f"{len(request.prompts)} prompts" if request.num_choices == 1 else f"{num_sequences} choices"
            param = "prompt" if request.num_choices == 1 else "n"
            raise InvalidRequest(f"{asked} are more than the {capacity} that fit; ask for fewer.", param=param)

    def _submitted(self, model: ServedModel, lease: Lease, request: InferenceRequest, record: RequestRecord) -> Inference:
        series = self.metrics.of_model(model.label)
        series.request_params_n.observe(request.num_choices)
        if request.params.max_tokens is not None:
            series.request_params_max_tokens.observe(request.params.max_tokens)
        generations: list[MeteredGeneration] = []
        group = next(self._groups)
        try:
            for prompt, params in request.submissions():
                generation = lease.submit(
                    prompt,
                    params,
                    priority=request.priority,
                    principal=record.principal.id,
                    group=group,
                    deadline_s=self.settings.request_timeout_s,
                    adapter=model.adapter,
                    return_prompt_text=request.return_prompt_text,
                    return_prompt_token_ids=request.return_prompt_token_ids,
                )
                generations.append(MeteredGeneration(generation, series, record))
        except BaseException:
            for submitted in generations:
                submitted.abort()
            lease.release()
            raise
        parsing = AnswerParsing.of(lease.info, request.prompts[0])
        return Inference(model, lease, generations, self.settings.request_timeout_s + _HANG_S, parsing=parsing)


def _check_copies(request: InferenceRequest) -> None:
    """Each choice sends its prompt to the worker."""
    num_bytes = len(encode(request.prompts)) * request.num_choices
    if num_bytes > _MOST_COPIED_BYTES:
        asked = f"{request.num_choices} choices of this prompt are {num_bytes} bytes, more than the {_MOST_COPIED_BYTES} possible"
        raise InvalidRequest(f"{asked}; ask for fewer choices, or send less text.", param="n")


def _with_remedy(failure: RuntimeFailure, label: str) -> RuntimeFailure:
    """What to do about a model that cannot be loaded, which who loads it does not know."""
    if failure.code != "load_failed":
        return failure
    why = failure.message.strip().rstrip(".")
    message = f"{why}. Run `slmops verify {label}` to check its files."
    return NotReady(message, param=failure.param, code=failure.code, retry_after_s=failure.retry_after_s)
