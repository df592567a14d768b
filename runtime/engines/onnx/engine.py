"""Our own engine: continuous batching on ONNX Runtime's CPU provider, built from a model's folder."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from model_registry.records import Capability
from runtime.batching.engine import BatchingEngine, Limits
from runtime.batching.intake import Intake
from runtime.engines.model_folder import read_model_folder
from runtime.engines.onnx.adapters import GraphAdapters
from runtime.engines.onnx.decoder import OnnxDecoder, release_scratch
from runtime.machine.hardware import usable_cores
from runtime.protocol.messages import EngineOptions, ModelInfo


def build_onnx_engine(path: Path, options: EngineOptions) -> BatchingEngine:
    """Loads the model. Raises ValueError (BadModelFolder, UnsupportedGraph), MemoryError, or onnxruntime's exceptions."""
    began = time.monotonic()
    folder = read_model_folder(path)
    context = min(options.context_length or folder.context_length, folder.context_length)
    threads = options.threads or usable_cores()
    adapters = GraphAdapters({name: Path(each) for name, each in options.adapters.items()}, path) if options.adapters else None
    runner = OnnxDecoder(folder, num_slots=options.num_slots, threads=threads, context=context, adapters=adapters)
    intake = Intake.of_folder(folder, context, options, adapters=tuple(options.adapters))
    release_scratch()
    process = psutil.Process()
    info = ModelInfo(
        engine="onnx",
        provider="CPUExecutionProvider",
        architecture=folder.architecture,
        context_length=context,
        vocab_size=folder.vocab_size,
        num_slots=options.num_slots,
        threads=threads,
        kv_bytes_per_token=runner.kv.bytes_per_token,
        capabilities=intake.capabilities | {Capability.ADAPTERS},
        chat_template_error=intake.template_error,
        load_s=time.monotonic() - began,
        resident_bytes=process.memory_info().rss,
        pid=os.getpid(),
        can_set_threads=True,
        adapters=tuple(options.adapters),
        tool_format=intake.formats.tools_name,
        reasoning_format=intake.formats.reasoning_name,
    )
    return BatchingEngine(
        info,
        runner,
        intake,
        Limits(options, options.kv_budget_bytes or psutil.virtual_memory().available // 2, folder.eos_ids),
        resident_bytes=lambda: int(process.memory_info().rss),
    )
