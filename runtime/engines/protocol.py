"""What a worker needs of an engine, and which engine it builds. Imports an engine and its libraries only when it is needed.

One thread calls everything but `prepare` and `tokenize`, which may run on another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from model_registry.staging import hold
from runtime.protocol.messages import Load, ModelInfo, Stats, StepReport, Submit
from runtime.protocol.request import Prompt
from runtime.text.tokenizer import Tokenizer


class Prepared(Protocol):
    """A request as an engine wants it; each engine has a type of its own."""

    @property
    def request(self) -> int: ...


class EngineBroken(Exception):
    """An engine cannot go on: its worker ends, and another takes its place. Raised by `step`."""


class Engine(Protocol):
    @property
    def info(self) -> ModelInfo: ...

    @property
    def num_unfinished(self) -> int:
        """Requests added and not yet finished; with none, `step` need not be called."""
        ...

    def prepare(self, submit: Submit) -> Prepared:
        """The part that needs no model: template, tokens, limits. Thread-safe. Raises InvalidRequest."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's. Thread-safe."""
        ...

    def tokenize(self, prompt: Prompt) -> list[int]:
        """What `prepare` would make of a prompt, also where that is too long to run. Thread-safe. Raises InvalidRequest."""
        ...

    def add(self, prepared: Any) -> None:
        """Queues what this engine prepared. Raises OverCapacity when the queue is full."""
        ...

    def remove(self, request: int) -> None:
        """Forgets a request, in whatever state; nothing more is reported of it. Unknown numbers just finished."""
        ...

    def step(self) -> StepReport: ...

    def fail_all(self) -> list[int]:
        """Forgets every request and everything cached, after `step` raised. Returns the requests."""
        ...

    def stats(self) -> Stats: ...

    def close(self) -> None: ...


@runtime_checkable
class AdjustableEngine(Protocol):
    """An engine that can change its threads: `info.can_set_threads` is true."""

    def set_threads(self, num_threads: int) -> None:
        """Computes with so many from the next step on; running requests go on."""
        ...


def build_engine(load: Load) -> Engine:
    """Raises whatever the engine raises when its model cannot be loaded; ValueError for an unknown engine."""
    folder = Path(load.folder)
    if load.engine == "fake":
        from runtime.engines.fake import build_fake_engine

        return build_fake_engine(load.options)
    if load.engine not in ("onnx", "genai", "foundry"):
        raise ValueError(f"there is no engine {load.engine!r}; known are onnx, genai, foundry and fake")
    for held in (folder, *map(Path, load.options.adapters.values())):
        hold(held)
    if load.engine == "onnx":
        from runtime.engines.onnx.engine import build_onnx_engine

        return build_onnx_engine(folder, load.options)
    if load.engine == "genai":
        from runtime.engines.genai.library import build_genai_engine

        return build_genai_engine(folder, load.options, load.provider)
    from runtime.engines.foundry.sessions import build_foundry_engine

    return build_foundry_engine(folder, load.options, load.provider)
