"""What a model will take, read from its folder; and what this machine has."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from model_registry.decoder_memory import PACKED_WEIGHTS, WORKING_BYTES
from runtime.pool import memory
from runtime.pool.memory import MemoryEstimate, estimate_memory, machine_memory_bytes
from runtime.protocol.messages import EngineOptions

ROW_TOKEN_BYTES = 2 * 3 * 4 * 16 * 4  # K and V, layers, heads, head size, float32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    decoder = {
        "filename": "model.onnx",
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "num_attention_heads": 4,
        "head_size": 16,
        "hidden_size": 64,
        "inputs": {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
        "outputs": {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
    }
    model = {"type": "llama", "vocab_size": 100, "context_length": 1000, "eos_token_id": 2, "decoder": decoder}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": model, "search": {}}))
    (tmp_path / "model.onnx").write_bytes(b"x" * 1000)
    (tmp_path / "model.onnx.data").write_bytes(b"x" * 9000)
    (tmp_path / "tokenizer.json").write_bytes(b"{}" + b" " * 5000)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "tokens_of_a_row", "rows"),
    [
        (EngineOptions(num_slots=8), 1000, 8),
        (EngineOptions(num_slots=8, context_length=100), 100, 8),
        (EngineOptions(num_slots=8, context_length=5000), 1000, 8),  # never beyond the model's own
        (EngineOptions(num_slots=1), 1000, 1),
    ],
)
def test_the_estimate(folder: Path, options: EngineOptions, tokens_of_a_row: int, rows: int) -> None:
    estimate = estimate_memory(folder, options)
    assert estimate.fixed_bytes == int(10_000 * PACKED_WEIGHTS) + WORKING_BYTES
    assert estimate.least_kv_bytes == ROW_TOKEN_BYTES * tokens_of_a_row
    assert estimate.most_kv_bytes == rows * estimate.least_kv_bytes


def test_weights_that_are_widened_count_twice(folder: Path) -> None:
    estimate = estimate_memory(folder, EngineOptions(), is_widened=True)
    assert estimate.fixed_bytes == int(20_000 * PACKED_WEIGHTS) + WORKING_BYTES


def test_a_budget_for_kv_bounds_the_estimate(folder: Path) -> None:
    estimate = estimate_memory(folder, EngineOptions(kv_budget_bytes=500))
    assert (estimate.least_kv_bytes, estimate.most_kv_bytes) == (500, 500)


def test_what_was_measured_takes_the_place_of_the_estimate() -> None:
    estimate = MemoryEstimate(100, 10, 50)
    assert estimate.corrected(None) == estimate
    assert estimate.corrected(170) == MemoryEstimate(170, 10, 50)


@pytest.mark.parametrize(("limit", "binds"), [("1048576\n", True), ("max\n", False), (f"{1 << 60}\n", False), (None, False)])
def test_a_container_may_have_less_than_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, binds: bool
) -> None:
    file = tmp_path / "memory.max"
    if limit is not None:
        file.write_text(limit)
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", file)
    assert machine_memory_bytes() == (1 << 20 if binds else psutil.virtual_memory().total)
