"""What is refused, by name and with a remedy, before any weight is read; and the rotary frequencies."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_registry.conversion.decoder.architecture import Architecture, Rope, RopeScaling, rotation
from model_registry.conversion.formats.gguf.architecture import read_architecture
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.reader import open_gguf
from model_registry.errors import CorruptModel, RegistryError, UnsupportedModel
from tests.doubles.tiny_gguf import GEMMA, ImportTiny, Tiny, write_gguf

pytestmark = pytest.mark.model


@pytest.mark.parametrize(
    ("tiny", "kind", "message"),
    [
        (Tiny("phi3"), UnsupportedModel, "'phi3' is not supported; supported are llama, smollm3, qwen2, qwen3"),
        (Tiny(metadata={"llama.expert_count": 8}), UnsupportedModel, "mixture of experts"),
        (Tiny(metadata={"llama.rope.scaling.type": "longrope"}), UnsupportedModel, "'longrope'"),
        (Tiny(metadata={"llama.rope.dimension_count": 8}), UnsupportedModel, "rotates 8 of 16"),
        (Tiny(head_size=24), UnsupportedModel, "Heads of 24 dimensions"),
        (Tiny(metadata={"llama.attention.value_length": 32}), UnsupportedModel, "differ in size"),
        (Tiny(metadata={"llama.block_count": 3}), CorruptModel, r"no tensor blk\.2"),
        (Tiny(metadata={"llama.block_count": 0}), CorruptModel, "block_count is 0"),
        (Tiny(metadata={"llama.block_count": None}), CorruptModel, r"no llama\.block_count"),
        (Tiny(metadata={"llama.block_count": "two"}), CorruptModel, "not a whole number"),
        (Tiny(metadata={"llama.context_length": 1 << 31}), CorruptModel, "context_length is 2147483648"),
        (Tiny(metadata={"llama.feed_forward_length": 128}), CorruptModel, r"shape \[96, 64\] where .* \[128, 64\]"),
        (Tiny(metadata={"llama.feed_forward_length": [96, 64]}), CorruptModel, "differs from layer to layer"),
        (Tiny(metadata={"llama.attention.head_count_kv": 3}), CorruptModel, "no divisor"),
        (Tiny(metadata={"llama.rope.freq_base": float("nan")}), CorruptModel, "freq_base is nan"),
        (Tiny(tensors={"token_embd.weight": None}), CorruptModel, r"no tensor token_embd\.weight"),
        (Tiny(tensors={"blk.1.ffn_up.weight": None}), CorruptModel, r"no tensor blk\.1\.ffn_up\.weight"),
        (Tiny(tensors={"blk.0.extra.weight": np.ones(4, np.float32)}), UnsupportedModel, r"'blk\.0\.extra\.weight'"),
        (Tiny("gemma3", tensors={"blk.0.post_ffw_norm.weight": None}), CorruptModel, "post_ffw_norm"),
        (Tiny("gemma3", metadata={"gemma3.final_logit_softcapping": 30.0}), UnsupportedModel, "caps its logits"),
        (Tiny("qwen3", tensors={"blk.0.attn_q_norm.weight": None}), CorruptModel, "attn_q_norm"),
    ],
)
def test_refusals(tiny: Tiny, kind: type[RegistryError], message: str, import_tiny: ImportTiny) -> None:
    with pytest.raises(kind, match=message):
        import_tiny(tiny)


def test_the_architecture_is_read(tmp_path: Path) -> None:
    tiny = Tiny("qwen3", head_size=32, metadata={"qwen3.attention.head_count_kv": [2, 2]})
    found = read_architecture(open_gguf(write_gguf(tmp_path / "m.gguf", tiny)).metadata)
    assert (found.name, found.num_layers, found.head_size, found.num_kv_heads) == ("qwen3", 2, 32, 2)
    assert (found.query_size, found.kv_size) == (128, 64)
    assert found.family.query_key_norm
    assert not found.family.interleaved
    assert all(found.rotates(layer) for layer in range(2))


def test_smollm3_rotates_all_layers_but_each_fourth(tmp_path: Path) -> None:
    found = read_architecture(open_gguf(write_gguf(tmp_path / "m.gguf", Tiny("smollm3", layers=8))).metadata)
    assert [layer for layer in range(8) if not found.rotates(layer)] == [3, 7]


def architecture_of(tmp_path: Path, tiny: Tiny) -> Architecture:
    return read_architecture(open_gguf(write_gguf(tmp_path / "m.gguf", tiny)).metadata)


def test_each_sixth_layer_of_gemma3_sees_everything(tmp_path: Path) -> None:
    found = architecture_of(tmp_path, GEMMA)
    assert [found.window(layer) for layer in range(7)] == [9, 9, 9, 9, 9, None, 9]
    assert [found.layer_rope(layer).theta for layer in range(7)] == [10000, 10000, 10000, 10000, 10000, 1000, 10000]
    assert (found.embedding_scale, found.attention_scale) == (8.0, 0.25)


def test_a_gemma3_that_says_more_is_believed(tmp_path: Path) -> None:
    more = {
        "gemma3.attention.sliding_window": 9,
        "gemma3.attention.sliding_window_pattern": 2,
        "gemma3.rope.freq_base_swa": 500.0,
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
        "gemma3.attention.scale": 0.125,
    }
    found = architecture_of(tmp_path, replace(GEMMA, layers=2, metadata=more))
    assert [found.window(layer) for layer in range(2)] == [9, None]
    assert [found.layer_rope(layer) for layer in range(2)] == [Rope(500.0), Rope(1000.0, RopeScaling.LINEAR, 8.0)]
    assert found.attention_scale == 0.125


@pytest.mark.parametrize(("layers", "scale"), [(48, 16**-0.5), (62, 32**-0.5)])
def test_the_27b_model_scales_attention_by_its_width(layers: int, scale: float) -> None:
    values = {
        "block_count": layers,
        "context_length": 64,
        "embedding_length": 128,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.key_length": 16,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    metadata = Metadata({"general.architecture": "gemma3", **{f"gemma3.{key}": value for key, value in values.items()}})
    assert read_architecture(metadata).attention_scale == scale


def test_a_file_without_an_architecture_is_corrupt() -> None:
    with pytest.raises(CorruptModel, match="general\\.architecture"):
        read_architecture(Metadata({}))


def test_plain_and_linear_frequencies() -> None:
    plain = Rope(10000.0).frequencies(8, None)
    np.testing.assert_allclose(plain, [1, 0.1, 0.01, 0.001])
    np.testing.assert_allclose(Rope(10000.0, RopeScaling.LINEAR, 4.0).frequencies(8, None), plain / 4)
    divisors = np.array([1, 2, 4, 8], np.float32)
    np.testing.assert_allclose(Rope(10000.0).frequencies(8, divisors), plain / divisors)


def test_yarn_keeps_fast_frequencies_and_stretches_slow_ones() -> None:
    """By the paper: kept above 32 turns in the original context, divided below 1 turn, blended between."""
    rope = Rope(10000.0, RopeScaling.YARN, 4.0, original_context=4096)
    plain, stretched = Rope(10000.0).frequencies(128, None), rope.frequencies(128, None)
    turns = 4096 * plain / (2 * math.pi)
    ratio = stretched / plain
    np.testing.assert_allclose(ratio[turns > 40], 1)
    np.testing.assert_allclose(ratio[turns < 0.8], 0.25)
    assert (np.diff(ratio) <= 1e-12).all()
    cosine, _ = rotation(rope, stretched, 0, 1)
    np.testing.assert_allclose(cosine, 1 + 0.1 * math.log(4), rtol=1e-6)
