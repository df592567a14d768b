"""The way from a validated request to running generations: name, version, lease, submissions. Also: are we ready?

Knows the pool and the registry's names; knows no HTTP and no wire format.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from model_registry.errors import RegistryError
from runtime.errors import InvalidRequest, NotReady, RuntimeFailure
from runtime.messages import Prompt, SamplingParams
from runtime.pool import Lease, LoadedModel, LoadSpec, ModelPool, ModelState
from server.inference import Answer, Inference
from server.lifecycle import Lifecycle
from server.metered import MeteredGeneration
from server.metrics import Metrics
from server.request_record import RequestRecord
from server.served_models import ServedModel, ServedModels
from server.settings import Settings

_HANG_S = 2.0  # an engine that ends no late request for so long hangs
_log = logging.getLogger("slmops.gateway")


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What any dialect asks: one choice per prompt, all with the same parameters."""

    prompts: Sequence[Prompt]
    params: SamplingParams
    priority: int = 0
    return_prompt_text: bool = False


class Gateway:
    """Constructed once per app; every method belongs to the app's event loop."""

    def __init__(self, settings: Settings, models: ServedModels, pool: ModelPool, metrics: Metrics, lifecycle: Lifecycle) -> None:
        self.settings = settings
        self.models = models
        self.metrics = metrics
        self._pool = pool
        self._lifecycle = lifecycle
        self._options = settings.engine_options()
        self._is_warming = False

    def resolve(self, name: str | None) -> ServedModel:
        """The model of that name, or the default one. Raises ModelNotFound."""
        return self.models.resolve(name or self.settings.model)

    async def infer(self, model: ServedModel, request: InferenceRequest, record: RequestRecord) -> Inference:
        """Waits for the model and for the first event. The caller closes the inference. Raises RuntimeFailure."""
        self._check_count(len(request.prompts))
        record.model = model.label
        lease = await self.acquire(model)
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

    async def acquire(self, model: ServedModel) -> Lease:
        """A lease on the model, loaded now if it was not. Raises NotReady, EngineDead."""
        spec = LoadSpec(model.label, model.folder, self.settings.engine, self._options)
        try:
            lease = await self._pool.acquire(spec, timeout_s=self.settings.load_timeout_s)
        except RuntimeFailure as failure:
            raise _with_remedy(failure, model.label) from None
        self.metrics.of_model(model.label).served_by(lease.info)
        return lease

    async def warm_up(self) -> None:
        """Loads the default model, so that the first request need not wait. A failure is logged, and we are not ready."""
        self._is_warming = True
        try:
            model = self.resolve(None)
            self.metrics.of_model(model.label)
            (await self.acquire(model)).release()
            _log.info("default model loaded", extra={"fields": {"model": model.label}})
        except (RuntimeFailure, RegistryError) as failure:
            _log.warning("default model not loaded", extra={"fields": {"model": self.settings.model, "why": str(failure)}})
        finally:
            self._is_warming = False

    def why_not_ready(self) -> str | None:
        """None when the default model answers, or would after a load; else the reason."""
        if not self._lifecycle.is_serving:
            return "The server is shutting down."
        try:
            label = self.resolve(None).label
        except RegistryError as failure:
            return str(failure)
        states = {model.spec.label: model.state for model in self._pool.loaded()}
        if states.get(label) is ModelState.READY:
            return None
        if self._is_warming or states.get(label) in (ModelState.LOADING, ModelState.RESTARTING):
            return f"The default model {label} is loading."
        last = self._pool.load_failure(label)
        return None if last is None else _with_remedy(last, label).message

    def loaded(self) -> tuple[LoadedModel, ...]:
        return self._pool.loaded()

    async def unload(self, name: str) -> Sequence[str]:
        """Ends the worker of every loaded version that the name means (`name:number`: that one). Returns their labels."""
        doomed = [each.spec.label for each in self.loaded() if name in (each.spec.label, each.spec.label.rpartition(":")[0])]
        return [label for label in doomed if await self._pool.unload(label)]

    def _check_count(self, num_prompts: int) -> None:
        capacity = self.settings.num_slots + self.settings.max_waiting
        if num_prompts > capacity:
            raise InvalidRequest(f"{num_prompts} prompts are more than the {capacity} that fit; send fewer.", param="prompt")

    def _submitted(self, model: ServedModel, lease: Lease, request: InferenceRequest, record: RequestRecord) -> Inference:
        series = self.metrics.of_model(model.label)
        series.request_params_n.observe(1)
        if request.params.max_tokens is not None:
            series.request_params_max_tokens.observe(request.params.max_tokens)
        generations: list[MeteredGeneration] = []
        try:
            for prompt in request.prompts:
                generation = lease.submit(
                    prompt,
                    request.params,
                    priority=request.priority,
                    deadline_s=self.settings.request_timeout_s,
                    return_prompt_text=request.return_prompt_text,
                )
                generations.append(MeteredGeneration(generation, series, record))
        except BaseException:
            for submitted in generations:
                submitted.abort()
            lease.release()
            raise
        return Inference(model, lease, generations, self.settings.request_timeout_s + _HANG_S)


def _with_remedy(failure: RuntimeFailure, label: str) -> RuntimeFailure:
    """What to do about a model that cannot be loaded, which who loads it does not know."""
    if failure.code != "load_failed":
        return failure
    why = failure.message.strip().rstrip(".")
    message = f"{why}. Run `slmops verify {label}` to check its files."
    return NotReady(message, param=failure.param, code=failure.code, retry_after_s=failure.retry_after_s)
