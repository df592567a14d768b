"""Which engine a worker builds. Knows no worker; imports an engine, and the libraries beneath it, only when it is asked for."""

from __future__ import annotations

from pathlib import Path

from model_registry.holds import hold
from runtime.engines.protocol import Engine
from runtime.messages import Load


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
        from runtime.engines.onnx import build_onnx_engine

        return build_onnx_engine(folder, load.options)
    if load.engine == "genai":
        from runtime.engines.genai import build_genai_engine

        return build_genai_engine(folder, load.options, load.provider)
    from runtime.engines.foundry import build_foundry_engine

    return build_foundry_engine(folder, load.options, load.provider)
