"""The models in memory: loads on demand, shares each load among all who ask, restarts what died, unloads what is told to go.

One worker process per loaded model. All methods belong to one event loop. Knows no registry and no HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from runtime.errors import NotReady
from runtime.generation import Generation
from runtime.messages import EngineOptions, Load, ModelInfo, Prompt, SamplingParams, Stats, Submit
from runtime.resident_model import ModelState, ResidentModel
from runtime.worker_process import WorkerProcess


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to load: a version's label (`smollm2-135m:1`), its variant's folder, the engine (`onnx`, `fake`) and its options."""

    label: str
    folder: Path
    engine: str
    options: EngineOptions


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


class Lease:
    """A claim on a loaded model: it is not unloaded while any lease is open. Use as `with lease:` or call release()."""

    def __init__(self, model: ResidentModel, info: ModelInfo) -> None:
        self._model = model
        self._released = False
        self.info = info
        model.hold()

    def submit(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        priority: int = 0,
        deadline_s: float | None = None,
        return_prompt_text: bool = False,
    ) -> Generation:
        """Raises EngineDead when the worker has died since the lease was taken."""
        return self._model.worker().submit(
            lambda number: Submit(
                request=number,
                prompt=prompt,
                params=params,
                priority=priority,
                deadline_s=deadline_s,
                return_prompt_text=return_prompt_text,
            )
        )

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._model.let_go()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


class ModelPool:
    """What a worker prints goes to the gateway's own standard error."""

    def __init__(self) -> None:
        self._models: dict[str, ResidentModel] = {}
        self._specs: dict[str, LoadSpec] = {}
        self._failures: dict[str, NotReady] = {}
        self._closing = False

    async def acquire(self, spec: LoadSpec, *, timeout_s: float) -> Lease:
        """Joins or starts a load. Raises NotReady: still loading after timeout_s, draining, or failed; it says why."""
        if self._closing:
            raise _draining()
        model = self._models.get(spec.label)
        if model is None:
            model = self._begin_load(spec)
        try:
            async with asyncio.timeout(timeout_s):
                info = await model.ready()
        except TimeoutError:
            raise NotReady(
                f"{spec.label} is still loading after {timeout_s:g} s. Retry in a moment.", code="model_loading", retry_after_s=2.0
            ) from None
        return Lease(model, info)

    def _begin_load(self, spec: LoadSpec) -> ResidentModel:
        def failed(why: NotReady) -> None:
            self._failures[spec.label] = why
            self._forget(spec.label, model)

        model = ResidentModel(spec.label, lambda: self._spawn(spec), failed)
        self._models[spec.label] = model
        self._specs[spec.label] = spec
        self._failures.pop(spec.label, None)
        model.begin_load()
        return model

    def load_failure(self, label: str) -> NotReady | None:
        """Why the last load of this model failed; None when it did not, or when another has begun since."""
        return self._failures.get(label)

    def loaded(self) -> tuple[LoadedModel, ...]:
        """Every model that is loaded, or on its way in or out."""
        return tuple(
            LoadedModel(
                spec=self._specs[label],
                state=model.state,
                info=model.info,
                stats=model.stats,
                num_leases=model.num_leases,
                loaded_at=model.loaded_at,
                idle_since=model.idle_since,
                num_restarts=model.num_restarts,
            )
            for label, model in self._models.items()
        )

    async def unload(self, label: str, *, grace_s: float = 0.0) -> bool:
        """Drains for grace_s, then ends the worker. False when not loaded."""
        model = self._models.get(label)
        if model is None:
            return False
        reason = NotReady(f"{label} was unloaded while the request ran. Retry to load it again.", retry_after_s=1.0)
        try:
            await model.unload(grace_s, reason)
        finally:
            self._forget(label, model)
        return True

    async def close(self, *, grace_s: float) -> None:
        """Lets requests finish for grace_s, ends the others with NotReady, ends every worker. Later acquires raise NotReady."""
        self._closing = True
        await asyncio.gather(*(model.unload(grace_s, _draining()) for model in self._models.values()))
        self._models.clear()
        self._specs.clear()

    def _forget(self, label: str, model: ResidentModel) -> None:
        if self._models.get(label) is model:
            del self._models[label]
            del self._specs[label]

    async def _spawn(self, spec: LoadSpec) -> WorkerProcess:
        load = Load(engine=spec.engine, folder=str(spec.folder), options=spec.options)
        return await WorkerProcess.start(load, spec.label)


def _draining() -> NotReady:
    return NotReady("The server is shutting down. Retry in a moment.", code="draining", retry_after_s=5.0)


__all__ = ["Generation", "Lease", "LoadSpec", "LoadedModel", "ModelPool", "ModelState"]
