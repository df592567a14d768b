"""onnxruntime-genai as an engine: every decoder and every provider that it runs. The only file that imports it.

Most models run by generators, one per sequence (`generators`). A model whose configuration has an `engine` section, as those
with a paged KV cache do, runs by genai's own engine, which batches (`batches`).
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from model_registry.conversion.formats.onnx.genai_config import check_options
from model_registry.telemetry import turn_off_telemetry
from runtime.batching.engine import Limits
from runtime.batching.intake import Intake
from runtime.batching.sampler import Sampler
from runtime.engines.genai.batches import BatchDecoder, BatchLimits
from runtime.engines.genai.engine import Decoder, GenaiEngine
from runtime.engines.genai.generators import GeneratorDecoder, GeneratorLimits
from runtime.engines.model_folder import ModelFolder, read_model_folder
from runtime.machine.hardware import usable_cores
from runtime.protocol.messages import EngineOptions, ModelInfo, ProviderChoice

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_PROBE_TOKENS = 16
_NO_TOKEN = -1
_APPENDING = frozenset({"CPU", "CUDA", "WEBGPU", "OPENVINO", "NVTENSORRTRTX", "RYZENAI"})  # device types, as genai names them


def genai_flags() -> dict[str, bool]:
    """The providers that this build of onnxruntime-genai was made with. Raises ImportError where it is not installed."""
    og = _library()
    return {name: bool(getattr(og, f"is_{name}_available")()) for name in ("cuda", "dml", "qnn", "openvino", "webgpu")}


def build_genai_engine(path: Path, options: EngineOptions, provider: ProviderChoice) -> GenaiEngine:
    """Loads the model. Raises ImportError, ValueError (BadModelFolder), UnsupportedModel, or RuntimeError with genai's reason."""
    began = time.monotonic()
    folder = read_model_folder(path)
    context = min(options.context_length or folder.context_length, folder.context_length)
    threads = options.threads or usable_cores()
    limits = Limits(options, options.kv_budget_bytes or psutil.virtual_memory().available // 2, folder.eos_ids)
    config = json.loads((path / "genai_config.json").read_text(encoding="utf-8"))
    check_options(config)  # also of versions that an earlier release imported
    og = _library()
    model = _load(og, path, provider, _overlay(config, threads))
    batches = bool(config.get("engine"))
    intake = Intake.of_folder(folder, context, options, constrains=not batches)
    loaded = _batches(og, model, folder, context) if batches else _generators(og, model, folder, context, limits, intake)
    process = psutil.Process()
    info = ModelInfo(
        engine="genai",
        provider=provider.name,
        architecture=folder.architecture,
        context_length=context,
        vocab_size=folder.vocab_size,
        num_slots=min(options.num_slots, loaded.max_running),
        threads=threads,
        kv_bytes_per_token=loaded.kv_bytes_per_token,
        capabilities=intake.capabilities,
        chat_template_error=intake.template_error,
        load_s=time.monotonic() - began,
        resident_bytes=process.memory_info().rss,
        pid=os.getpid(),
        batches=batches,
        silent_steps=True,  # genai computes with the interpreter's lock held
        tool_format=intake.formats.tools_name,
        reasoning_format=intake.formats.reasoning_name,
    )
    return GenaiEngine(info, loaded.decoder, intake, limits, resident_bytes=lambda: int(process.memory_info().rss))


@dataclass(frozen=True, slots=True)
class _Loaded:
    decoder: Decoder
    kv_bytes_per_token: int
    max_running: int


def _library() -> Any:
    """onnxruntime-genai with its telemetry off. The variable, set before the import, stops what the call does not."""
    turn_off_telemetry()
    import onnxruntime_genai as og

    og.disable_telemetry_events()
    return og


def _load(og: Any, path: Path, provider: ProviderChoice, overlay: dict[str, Any]) -> Any:
    if provider.library is not None:
        og.register_execution_provider_library(provider.name, provider.library)
    if provider.name == CUDA:
        import onnxruntime

        onnxruntime.preload_dlls()  # CUDA's libraries, where they came as wheels
    config = og.Config(str(path))
    config.clear_providers()
    if provider.name != CPU:
        config.append_provider(provider.name)
        for name, value in provider.options.items():
            config.set_provider_option(provider.name, name, value)
    config.overlay(json.dumps(overlay))
    return og.Model(config)


def _overlay(config: dict[str, Any], threads: int) -> dict[str, Any]:
    """What we change of a model's configuration.

    genai takes padding tokens at the end of what is appended for padding: it scores the token before them, or reads out of bounds.
    But they are often end-of-turn tokens too, and prompts hold them. So no token is padding, except where genai itself pads: to the
    windows of a model that slides its inputs.
    """
    model: dict[str, Any] = {"decoder": {"session_options": {"intra_op_num_threads": threads}}}
    window = config["model"]["decoder"].get("sliding_window")
    if not window or not window.get("slide_inputs", True):
        model["pad_token_id"] = _NO_TOKEN
    return {"model": model}


def _generators(og: Any, model: Any, folder: ModelFolder, context: int, limits: Limits, intake: Intake) -> _Loaded:
    token_bytes = _kv_bytes_per_token(_generator(og, model, min(_PROBE_TOKENS, context)), folder)
    decoder = GeneratorDecoder(
        lambda capacity: _generator(og, model, capacity),
        Sampler(limits.eos_ids),
        intake.tokenizer.token_bytes(skip_special_tokens=False),
        GeneratorLimits(
            context=context,
            kv_bytes_per_token=token_bytes,
            kv_budget_bytes=limits.kv_budget_bytes,
            prefix_cache_bytes=limits.options.prefix_cache_bytes,
            max_token_gap_s=limits.options.max_token_gap_s,
            can_append=model.device_type.upper() in _APPENDING,
        ),
    )
    return _Loaded(decoder, token_bytes, limits.options.num_slots)


def _generator(og: Any, model: Any, capacity: int) -> Any:
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=capacity, do_sample=False, num_beams=1, num_return_sequences=1)
    return og.Generator(model, params)


def _kv_bytes_per_token(generator: Any, folder: ModelFolder) -> int:
    """KV bytes per token, from the KV tensors of a generator: layers may differ, and a hybrid model has layers without KV."""
    total = 0
    for layer in range(folder.decoder.num_layers):
        for pattern in (folder.decoder.past_key, folder.decoder.past_value):
            try:
                past = generator.get_input(pattern % layer)
            except RuntimeError:  # genai's only sign that there is no such input
                continue
            total += past.shape[1] * past.shape[-1] * past.itemsize
    return total


def _batches(og: Any, model: Any, folder: ModelFolder, context: int) -> _Loaded:
    """KV in numbers of 16 bits, which paged models have."""
    shape = folder.decoder
    token_bytes = 2 * shape.num_layers * shape.kv_heads * shape.head_size * 2
    limits = BatchLimits(context, folder.vocab_size, token_bytes, min(folder.eos_ids))
    decoder = BatchDecoder(og, model, limits)
    return _Loaded(decoder, token_bytes, decoder.max_batch_size)
