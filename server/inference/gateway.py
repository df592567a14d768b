"""The way from a validated request to running generations: what its name means, a lease on the model, its submissions.

Knows the pool and the registry's names; knows no HTTP and no wire format.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from model_registry.records import Capability
from runtime.pool.generation import Generation
from runtime.pool.lease import Lease
from runtime.pool.model_pool import ModelPool
from runtime.protocol.capabilities import Need, check_allowed, check_loaded, needs_of
from runtime.protocol.errors import NotReady, RuntimeFailure
from server.http.request_record import RequestRecord
from server.inference.answer_parts import AnswerParsing
from server.inference.inference import Answer, Inference
from server.inference.load_plans import LoadPlans
from server.inference.observed_generation import ObservedGeneration
from server.inference.observers import ObservedChoice, ObservedRequest, Observers
from server.inference.request import InferenceRequest, check_size
from server.inference.resolution import Resolution, ServedModel, Unresolved
from server.inference.served_models import ServedModels
from server.principal import LOCAL, AccessScope, InsufficientScope, Principal
from server.settings.daemon import Settings

_LASTING = ("insufficient_memory", "no_provider")  # refusals that are permanent unless they carry retry_after_s
_HANG_S = 2.0  # an engine that ends no late request for so long hangs


class Gateway:
    """Constructed once per app; every method must run on the app's event loop."""

    def __init__(self, settings: Settings, models: ServedModels, pool: ModelPool, plans: LoadPlans, observers: Observers) -> None:
        self.settings = settings
        self.models = models
        self.pool = pool
        self._plans = plans
        self._observers = observers
        self._groups = itertools.count(1)  # of our own: replicas number what they get each for itself
        self._refusals: dict[str, RuntimeFailure] = {}

    async def resolve(self, name: str | None, principal: Principal = LOCAL) -> Resolution:
        """What the name, or the default model's, means for a request of this principal: from memory, microseconds.

        What other processes have written is read before a model is called unknown. Raises ModelNotFound, UnsupportedModel.
        """
        name = name or self.settings.model
        found = self.models.resolve(name, principal)
        if isinstance(found, Unresolved) and not found.exists:
            await self.models.refresh()
            found = self.models.resolve(name, principal)
        if isinstance(found, Unresolved):
            raise found.error()
        return found

    async def infer(self, resolution: Resolution, request: InferenceRequest, record: RequestRecord) -> Inference:
        """Waits for the model and for the first event. The caller closes the inference.

        Raises RuntimeFailure, InsufficientScope.
        """
        if request.priority < 0 and not resolution.principal.allows(AccessScope.ADMIN):
            raise InsufficientScope(resolution.principal, [AccessScope.ADMIN], "priority")
        if request.num_sequences > 1:
            options = self._plans.settings_of(resolution.label).engine_options()
            check_size(request, options.num_slots + options.max_waiting)
        observed = ObservedRequest(resolution, request, record)
        self._observers.begun(observed)
        try:
            needs = needs_of(request.prompts[0], request.params, resolution.adapter)
            lease = await self.acquire(resolution.model, request.keep_alive_s, resolution.principal, needs)
            inference = self._submitted(lease, observed)
        except BaseException as error:
            self._observers.refused(observed, error)
            raise
        try:
            await inference.begin()
        except BaseException:
            inference.close()
            raise
        return inference

    async def answer(self, resolution: Resolution, request: InferenceRequest, record: RequestRecord) -> list[Answer]:
        """All choices, whole. Raises RuntimeFailure."""
        inference = await self.infer(resolution, request, record)
        try:
            return await inference.answers()
        finally:
            inference.close()

    async def acquire(
        self,
        model: ServedModel,
        keep_alive_s: float | None = None,
        principal: Principal | None = None,
        needs: Sequence[Need] = (),
    ) -> Lease:
        """A lease on the model, loaded now if it was not. principal: whose turn a load takes. needs: what the request needs of it.

        Raises NotReady, EngineDead, and InvalidRequest for a need that the model cannot meet.
        """
        check_allowed(model.label, model.capabilities, needs)
        turn_of = "" if principal is None else principal.id
        try:
            spec = self.pool.spec_of(model.label) or await self._plans.spec(model)
            timeout_s = self.settings.load_timeout_s
            lease = await self.pool.acquire(spec, timeout_s=timeout_s, keep_alive_s=keep_alive_s, principal=turn_of)
        except RuntimeFailure as failure:
            if failure.code in _LASTING and not failure.retry_after_s:
                self._refusals[model.label] = failure
            raise with_remedy(failure, model.label) from None
        self._refusals.pop(model.label, None)
        try:
            check_loaded(model.label, lease.info, needs)
        except RuntimeFailure:
            lease.release()
            raise
        return lease

    def capabilities_of(self, model: ServedModel) -> frozenset[Capability]:
        """Of the model as it is loaded; else what its version allows."""
        return next((each.capabilities for each in self.pool.loaded() if each.spec.label == model.label), model.capabilities)

    def load_refusal(self, label: str) -> RuntimeFailure | None:
        """Why a model could not even begin to load when it was last wanted, if that lasts."""
        return self._refusals.get(label)

    def _submitted(self, lease: Lease, observed: ObservedRequest) -> Inference:
        """Releases the lease when it raises: RuntimeFailure."""
        resolution, request = observed.resolution, observed.request
        try:
            generations = self._generations(lease, observed)
        except BaseException:
            lease.release()
            raise
        self._observers.submitted(observed)
        choices = [
            ObservedGeneration(generation, ObservedChoice(observed, index), self._observers)
            for index, generation in enumerate(generations)
        ]
        parsing = AnswerParsing.of(lease.info, request.prompts[0])
        return Inference(resolution, lease, choices, self.settings.request_timeout_s + _HANG_S, parsing=parsing)

    def _generations(self, lease: Lease, observed: ObservedRequest) -> list[Generation]:
        """All, or none when it raises."""
        resolution, request = observed.resolution, observed.request
        group = next(self._groups)
        generations: list[Generation] = []
        try:
            for prompt, params in request.submissions():
                generation = lease.submit(
                    prompt,
                    params,
                    priority=request.priority,
                    principal=resolution.principal.id,
                    group=group,
                    deadline_s=self.settings.request_timeout_s,
                    adapter=resolution.adapter,
                    return_prompt_text=request.return_prompt_text,
                    return_prompt_token_ids=request.return_prompt_token_ids,
                )
                generations.append(generation)
        except BaseException:
            for submitted in generations:
                submitted.abort()
            raise
        return generations


def with_remedy(failure: RuntimeFailure, label: str) -> RuntimeFailure:
    """The failure, with what to do about a model that cannot be loaded, which the loader does not know."""
    if failure.code != "load_failed":
        return failure
    why = failure.message.strip().rstrip(".")
    message = f"{why}. Run `slmops verify {label}` to check its files."
    return NotReady(message, field=failure.field, code=failure.code, retry_after_s=failure.retry_after_s)
