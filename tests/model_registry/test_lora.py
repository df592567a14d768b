"""Adapters in PEFT's layout: what is read, and what is refused because a sum of low rank could not express it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_registry.errors import UnsupportedModel
from model_registry.lora import CONFIG, WEIGHTS, read_lora
from tests.doubles.peft_folder import random_matrices, write_peft

ONE = random_matrices({"q_proj": (6, 8)}, layers=1, rank=2, seed=0)


def test_the_scale_stands_in_the_second_matrix(tmp_path: Path) -> None:
    lora = read_lora(write_peft(tmp_path / "plain", ONE, alpha=6))
    a, b = ONE[0, "q_proj"]
    assert lora.rank == 2
    np.testing.assert_array_equal(lora.changes[0, "q_proj"].down, a)
    np.testing.assert_allclose(lora.changes[0, "q_proj"].up, b * 3)
    stable = read_lora(write_peft(tmp_path / "stable", ONE, alpha=6, use_rslora=True))
    np.testing.assert_allclose(stable.changes[0, "q_proj"].up, b * np.float32(6 / 2**0.5))


@pytest.mark.parametrize(("dtype", "tolerance"), [("F16", 1e-3), ("BF16", 1e-2)])
def test_halves_are_read(tmp_path: Path, dtype: str, tolerance: float) -> None:
    folder = write_peft(tmp_path / "half", ONE, alpha=2)
    header: dict[str, Any] = {}
    body = b""
    for half, values in zip("AB", ONE[0, "q_proj"], strict=True):
        narrow = (values.view(np.uint32) >> 16).astype("<u2") if dtype == "BF16" else values.astype("<f2")
        name = f"base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight"
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [len(body), len(body) + narrow.nbytes]}
        body += narrow.tobytes()
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + body)
    np.testing.assert_allclose(read_lora(folder).changes[0, "q_proj"].down, ONE[0, "q_proj"][0], atol=tolerance)


@pytest.mark.parametrize(
    ("config", "expected_text"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"bias": "all"}, "biases"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"peft_type": "IA3"}, "Only LoRA"),
    ],
)
def test_what_is_more_than_a_sum_is_refused(tmp_path: Path, config: dict[str, Any], expected_text: str) -> None:
    with pytest.raises(UnsupportedModel, match=expected_text):
        read_lora(write_peft(tmp_path / "x", ONE, alpha=2, **config))


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"adapter_config.json cannot be read"):
        read_lora(tmp_path)
    with pytest.raises(UnsupportedModel, match="changes nothing"):
        read_lora(write_peft(tmp_path / "empty", {}, alpha=1))
    embedding = random_matrices({"embed": (6, 8)}, layers=1, rank=2, seed=0)
    with pytest.raises(UnsupportedModel, match=r"layers.0.mlp.embed.lora_A.weight; served are"):
        read_lora(write_peft(tmp_path / "embedding", embedding, alpha=1))
    damaged = write_peft(tmp_path / "damaged", ONE, alpha=1)
    (damaged / WEIGHTS).write_bytes((damaged / WEIGHTS).read_bytes()[:-4])
    with pytest.raises(UnsupportedModel, match="cannot be read"):
        read_lora(damaged)
    (damaged / CONFIG).write_text("[]")
    with pytest.raises(UnsupportedModel, match="holds no JSON object"):
        read_lora(damaged)
