"""CONTRACT SKETCH (the runtime's author replaces the bodies; signatures stay)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from runtime.messages import EngineOptions, Event, ModelInfo, Prompt, SamplingParams, Stats


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to load: a version's label (`smollm2-135m:1`), its variant's folder, the engine (`onnx`, `fake`) and its options."""

    label: str
    folder: Path
    engine: str
    options: EngineOptions


class ModelState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    UNLOADING = "unloading"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A row of `slmops ps`. idle_since: Unix time of the last finished request, None while busy. stats/info: None until ready."""

    spec: LoadSpec
    state: ModelState
    info: ModelInfo | None
    stats: Stats | None
    num_leases: int
    loaded_at: float | None
    idle_since: float | None
    num_restarts: int


class Generation(AsyncIterator[Event]):
    """Events of one request: Started, Chunk..., then Finished (the last). A Failed is raised as its RuntimeFailure subclass."""

    def abort(self) -> None:
        """Stop the row within one engine step; no-op when finished. Iterating afterwards ends with StopAsyncIteration."""


class Lease:
    """A claim on a loaded model: it is not unloaded while any lease is open. Use as `with lease:` or call release()."""

    info: ModelInfo

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        return_prompt_text: bool = False,
    ) -> Generation: ...

    def release(self) -> None: ...
    def __enter__(self) -> Lease: ...
    def __exit__(self, *exc: object) -> None: ...


class ModelPool:
    """Loaded models, one worker process each. All methods belong to one event loop."""

    async def acquire(self, spec: LoadSpec, *, timeout_s: float) -> Lease:
        """Joins or starts a load. Raises NotReady (still loading after timeout_s, draining, or the load failed: the message says why)."""

    def loaded(self) -> tuple[LoadedModel, ...]: ...

    async def unload(self, label: str, *, grace_s: float = 0.0) -> bool:
        """Drains for grace_s, then ends the worker. False when not loaded."""

    async def close(self, *, grace_s: float) -> None:
        """Lets running requests finish for grace_s, ends the others with NotReady, ends every worker. Later acquires raise NotReady."""
