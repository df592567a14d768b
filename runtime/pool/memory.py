"""How much memory a model will take, before it is loaded; and how much this machine has. Knows no pool and no policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from model_registry.decoder_memory import DecoderSizes, fixed_bytes
from runtime.engines.model_folder import read_model_folder
from runtime.protocol.messages import EngineOptions

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_WEIGHT_SUFFIXES = frozenset({".onnx", ".data", ".bin"})


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The memory of one worker, in bytes. fixed_bytes: weights and working set. KV comes on top, at kv_bytes_per_token.

    least_kv_bytes: one row at full context, without which some requests could not be served; most_kv_bytes: all rows.
    """

    fixed_bytes: int
    least_kv_bytes: int = 0
    most_kv_bytes: int = 0

    def corrected(self, measured_fixed_bytes: int | None) -> MemoryEstimate:
        """The estimate, corrected by the measured memory of a worker of this model, once that is known."""
        return self if measured_fixed_bytes is None else replace(self, fixed_bytes=measured_fixed_bytes)


def estimate_memory(folder: Path, options: EngineOptions, *, is_widened: bool = False) -> MemoryEstimate:
    """Estimates memory from the files of an onnxruntime-genai folder, without running anything. Raises BadModelFolder.

    is_widened: weights are float16 in the files, and float32 once they are loaded.
    """
    model = read_model_folder(folder)
    decoder = model.decoder
    sizes = DecoderSizes(decoder.num_layers, decoder.kv_heads, decoder.head_size, model.context_length)
    row_bytes = sizes.row_bytes(options.context_length)
    weights = sum(file.stat().st_size for file in folder.rglob("*") if _is_weights(file)) * (2 if is_widened else 1)
    most = row_bytes * options.num_slots
    if options.kv_budget_bytes is not None:
        most = min(most, options.kv_budget_bytes)
    return MemoryEstimate(fixed_bytes(weights), min(row_bytes, most), most)


def machine_memory_bytes() -> int:
    """What this process may use at most: the machine's memory, or its container's limit (cgroup v2)."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return total
    return total if limit == "max" else min(total, int(limit))


def _is_weights(file: Path) -> bool:
    return file.is_file() and (file.suffix in _WEIGHT_SUFFIXES or file.name.endswith(".onnx_data"))
