"""How each model is to be loaded: its settings, what a reload changed of them, and where it is placed. Loads nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import structs

from model_registry.decoder_memory import WORKING_BYTES
from model_registry.records import GraphKind, Precision, Variant
from runtime.engines.model_folder import BadModelFolder
from runtime.machine.execution_provider import HOST, ExecutionProvider
from runtime.machine.placement import Choice, PlacedVariant, Policy, Rejection, plan_placement
from runtime.machine.provider_directory import ProviderDirectory, this_cpu
from runtime.pool.loaded_model import Candidate, LoadSpec
from runtime.pool.memory import MemoryEstimate, estimate_memory
from runtime.pool.model_pool import ModelPool
from runtime.protocol.errors import NotReady
from runtime.protocol.messages import EngineOptions
from server.inference.resolution import ServedModel
from server.settings.daemon import Settings
from server.settings.models import ModelSettings
from server.settings.units import keep_alive_s

_FAKE_BYTES = 64 << 20


class LoadPlans:
    """What a reload changes holds until the daemon ends; slmops.toml has the lasting settings."""

    def __init__(self, settings: Settings, directory: ProviderDirectory, pool: ModelPool) -> None:
        self._settings = settings
        self._directory = directory
        self._pool = pool
        self._changed: dict[str, ModelSettings] = {}

    def change(self, label: str, changes: ModelSettings) -> Callable[[], None]:
        """Applies changes from now on. Returns a function that undoes them; later changes by others stay."""
        before = self._changed.get(label, ModelSettings())
        self._changed[label] = changes.over(before)

        def take_back() -> None:
            mine = {name: getattr(before, name) for name, value in changes if value is not None}
            self._changed[label] = self._changed[label].model_copy(update=mine)

        return take_back

    def settings_of(self, label: str) -> ModelSettings:
        return self._changed.get(label, ModelSettings()).over(self._settings.of_model(label))

    async def spec(self, model: ServedModel) -> LoadSpec:
        """Raises NotReady when no execution provider can run the model."""
        settings = self.settings_of(model.label)
        candidates, unused = await self._placed(model, settings)
        return LoadSpec(
            label=model.label,
            candidates=candidates,
            unused=unused,
            capabilities=model.capabilities,
            options=_options(model, settings),
            replicas=settings.replicas or 1,
            keep_alive_s=keep_alive_s(settings.keep_alive or 0.0),
            pinned=bool(settings.pin),
        )

    async def _placed(self, model: ServedModel, settings: ModelSettings) -> tuple[tuple[Candidate, ...], tuple[Rejection, ...]]:
        """(the ways to run it, the builds that this machine cannot run)."""
        if settings.engine == "fake":
            return (Candidate(Path(), "fake", MemoryEstimate(_FAKE_BYTES)),), ()
        options = _options(model, settings)
        folders = {variant.name: variant.folder for variant in model.variants}
        memory = await asyncio.to_thread(lambda: {variant.name: _estimate(variant, options) for variant in model.variants})
        providers = await self._providers(model, settings)
        placement = plan_placement(
            [_to_place(variant, memory[variant.name]) for variant in model.variants],
            providers,
            self._free_bytes(providers, model.label),
            settings.preference(),
            None if settings.engine == "auto" else settings.engine,
        )
        if not placement.choices:
            raise NotReady(f"{model.label} cannot be placed. {placement.refusal()}", code="no_provider", retry_after_s=0.0)
        candidates = (_candidate(choice, folders[choice.variant], memory[choice.variant]) for choice in placement.choices)
        return tuple(candidates), placement.unused

    async def _providers(self, model: ServedModel, settings: ModelSettings) -> Sequence[ExecutionProvider]:
        """Queries the machine only for variants that need more than its CPU and the built-in engine."""
        at_home = all(each.graph is GraphKind.GQA and each.provider_family == "cpu" for each in model.variants)
        if at_home and settings.engine in ("auto", "onnx") and isinstance(settings.preference(), Policy):
            return (await asyncio.to_thread(this_cpu),)
        return await self._directory.providers()

    def _free_bytes(self, providers: Sequence[ExecutionProvider], label: str) -> dict[str, int]:
        """The free memory of devices with memory of their own. The host's memory is left to the pool, which can make room."""
        free = {each.memory: each.memory_bytes for each in providers if each.memory != HOST and each.memory_bytes is not None}
        for loaded in self._pool.loaded():
            chosen = loaded.candidate or loaded.spec.candidates[0]  # one that still loads will probably be where it is tried first
            if chosen.place in free and loaded.spec.label != label:
                free[chosen.place] -= loaded.spec.replicas * chosen.place_bytes
        return free


def _options(model: ServedModel, settings: ModelSettings) -> EngineOptions:
    return structs.replace(settings.engine_options(), adapters={name: str(folder) for name, folder in model.adapters.items()})


def _estimate(variant: Variant, options: EngineOptions) -> MemoryEstimate:
    """A folder whose KV size is unknown is charged for its files only; if it is broken, its load fails with the reason."""
    adapters = sum(file.stat().st_size for folder in options.adapters.values() for file in Path(folder).iterdir())
    try:
        is_widened = variant.precision is Precision.FP16 and variant.provider_family == "cpu"  # CPUs compute in float32
        memory = estimate_memory(variant.folder, options, is_widened=is_widened)
        return replace(memory, fixed_bytes=memory.fixed_bytes + adapters)
    except BadModelFolder:
        return MemoryEstimate(variant.size_bytes)


def _to_place(variant: Variant, memory: MemoryEstimate) -> PlacedVariant:
    assert variant.graph is not None, "an engine loads no other variant"
    needed_bytes = memory.fixed_bytes + memory.least_kv_bytes
    return PlacedVariant(variant.name, variant.provider_family, variant.precision, variant.graph, needed_bytes)


def _candidate(choice: Choice, folder: Path, memory: MemoryEstimate) -> Candidate:
    on_host = choice.memory == HOST
    return Candidate(
        folder=folder,
        engine=choice.engine,
        memory=memory if on_host else MemoryEstimate(WORKING_BYTES),
        provider=choice.provider,
        variant=choice.variant,
        reason=choice.reason,
        place=choice.memory,
        place_bytes=choice.needed_bytes,
    )
