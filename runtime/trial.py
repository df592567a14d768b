"""A model's folder, loaded once in a worker of its own that then answers one token: before a version is published.

Owns no policy: a build that cannot be loaded raises, the reason why one cannot be tried here is returned, and the caller decides
what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import psutil

from model_registry.conversion.importer import Imported
from model_registry.errors import UnloadableModel
from model_registry.records import GraphKind, Precision
from runtime.engines.model_folder import BadModelFolder
from runtime.machine.execution_provider import ExecutionProvider
from runtime.machine.placement import Choice, PlacedVariant, plan_placement
from runtime.machine.provider_directory import ProviderDirectory, this_cpu
from runtime.pool.local import LocalWorker
from runtime.pool.memory import estimate_memory
from runtime.pool.watchdog import Patience
from runtime.protocol.errors import InvalidRequest, RuntimeFailure
from runtime.protocol.events import Finished
from runtime.protocol.messages import EngineOptions, Load, Submit
from runtime.protocol.request import SamplingParams, TextPrompt

LOAD_TIMEOUT_S = 900.0
ANSWER_TIMEOUT_S = 120.0
_OPTIONS = EngineOptions(num_slots=1, context_length=256, prefix_cache_bytes=0, max_waiting=1)
_NAME = "the model"
_UNTRIED = "It was not loaded once before it was published"


def try_folder(folder: Path, imported: Imported) -> str | None:
    """None when it answered; a sentence when this machine could not try it. Takes the time of a load. Not for an event loop.

    folder: as an importer wrote it. Raises UnloadableModel when an engine could not load it, or could not answer.
    """
    return asyncio.run(_try(folder, imported))


async def _try(folder: Path, imported: Imported) -> str | None:
    try:
        is_widened = imported.precision is Precision.FP16 and imported.provider_family == "cpu"
        memory = estimate_memory(folder, _OPTIONS, is_widened=is_widened)
    except BadModelFolder as error:
        raise _unloadable(str(error)) from error
    needed = memory.fixed_bytes + memory.least_kv_bytes
    if imported.provider_family == "cpu" and needed > (free := psutil.virtual_memory().available):
        return f"{_UNTRIED}: that needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free."
    variant = PlacedVariant("build", imported.provider_family, imported.precision, imported.graph, needed)
    placement = plan_placement([variant], await _providers(variant), {})
    if not placement.choices:
        return f"{_UNTRIED}, since it is built for {imported.provider_family}. {placement.refusal()}"
    await _try_first(folder, placement.choices)
    return None


async def _providers(variant: PlacedVariant) -> Sequence[ExecutionProvider]:
    """Queries the machine only for builds that the built-in engine cannot run on the CPU."""
    if variant.provider_family == "cpu" and variant.graph is GraphKind.GQA:
        return (this_cpu(),)
    return await ProviderDirectory().providers()


async def _try_first(folder: Path, choices: Sequence[Choice]) -> None:
    """Tries the best provider, then the next ones, since a failure need not be the model's fault. Raises UnloadableModel."""
    failures: list[str] = []
    for choice in choices:
        try:
            return await _answer_once(folder, choice)
        except (RuntimeFailure, TimeoutError) as error:
            failures.append(str(error) or "it took too long.")
    raise _unloadable(" ".join(dict.fromkeys(failures)))


async def _answer_once(folder: Path, choice: Choice) -> None:
    """Raises RuntimeFailure, TimeoutError. The worker is gone after this, however it ends."""
    load = Load(engine=choice.engine, folder=str(folder), options=_OPTIONS, provider=choice.provider)
    async with asyncio.timeout(LOAD_TIMEOUT_S):
        worker = await LocalWorker.start(_NAME, load, Patience(), quiet=True)
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            params = SamplingParams(temperature=0.0, max_tokens=1)
            prompt = TextPrompt(text="Hello")
            async for event in worker.submit(Submit(request=1, prompt=prompt, params=params)):
                if isinstance(event, Finished):
                    break
    except InvalidRequest:
        pass  # its vocabulary has no such text: it was loaded, and refuses by name what it cannot take
    finally:
        worker.kill()
        await worker.reap()


def _unloadable(reason: str) -> UnloadableModel:
    return UnloadableModel(
        f"The model was imported, but cannot be loaded, so nothing was published: {reason.rstrip('. ')}. "
        "Choose another build of the model; what was fetched is dropped."
    )
