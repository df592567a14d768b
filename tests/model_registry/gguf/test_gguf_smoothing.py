"""Smoothing: it never changes what is computed, it evens out what is rounded, and it leaves silent channels alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_registry.conversion.decoder.writer import write_decoder
from model_registry.conversion.formats.gguf.importer import open_source
from model_registry.conversion.measure.calibration import TEXT, calibrate, plan_num_tokens
from model_registry.conversion.measure.perplexity import TEXT as MEASURED
from model_registry.conversion.measure.reference import reference_logits
from model_registry.conversion.quantizers.smoothing import (
    MAX_OCTAVES,
    STEPS_PER_OCTAVE,
    LayerSmoothing,
    Smoothing,
    balance,
    find_outliers,
    over_groups,
    to_heads,
)
from model_registry.progress import SilentProgress
from model_registry.records import Precision
from tests.doubles.tiny_gguf import GEMMA, Tiny, open_session, run_graph, write_gguf

pytestmark = pytest.mark.model

IDS = np.random.default_rng(3).integers(3, 250, 40)
CALIBRATION = (np.random.default_rng(4).integers(3, 250, 48),)
BIASES = {f"blk.0.{name}.bias": np.linspace(-1, 1, size, dtype=np.float32) for name, size in (("ffn_up", 96), ("ffn_down", 64))}
FAMILIES = {
    "llama": Tiny(),
    "llama-tied": Tiny(tied=True),
    "llama-biases": Tiny(qkv_bias=True, tensors=BIASES),
    "llama-one-kv-head": Tiny(kv_heads=1),
    "smollm3": Tiny("smollm3", layers=5, tied=True),
    "qwen2": Tiny("qwen2", qkv_bias=True, tied=True),
    "qwen3": Tiny("qwen3", head_size=32),
    "gemma3": GEMMA,
}


def uneven(tiny: Tiny) -> Tiny:
    """With channels far larger than their neighbours, which the weights weigh accordingly less, as trained models do."""
    random = np.random.default_rng(5)
    norm = np.ones(tiny.hidden, np.float32)
    norm[[3, 20, 40, 60]] = 60, -25, 80, 40
    tensors = dict(tiny.tensors)
    for layer in range(tiny.layers):
        tensors[f"blk.{layer}.ffn_norm.weight"] = norm
        for name in ("ffn_gate", "ffn_up"):
            weights = random.standard_normal((tiny.ffn, tiny.hidden)) * 1.5 / np.sqrt(tiny.hidden) / norm
            tensors[f"blk.{layer}.{name}.weight"] = weights.astype(np.float32)
    return replace(tiny, tensors=tensors)


def computed(path: Path, folder: Path, written: Precision, smoothed: bool) -> NDArray[np.float32]:
    source = open_source(path)
    smoothing = calibrate(source, Precision.INT8, CALIBRATION, SilentProgress())
    assert all(layer.attention is not None and layer.gated is not None for layer in smoothing.layers)
    chosen = smoothing if smoothed else Smoothing((LayerSmoothing(),) * source.architecture.num_layers)
    folder.mkdir()
    write_decoder(source, folder, written, chosen, SilentProgress())
    return run_graph(open_session(folder), IDS.tolist())[0]


def truth(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(reference_logits(open_source(path), [IDS])))


@pytest.mark.parametrize("tiny", FAMILIES.values(), ids=FAMILIES.keys())
def test_without_rounding_nothing_changes(tiny: Tiny, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", uneven(tiny))
    logits = computed(path, tmp_path / "smoothed", Precision.FP32, smoothed=True)
    np.testing.assert_allclose(logits, truth(path), atol=1e-3)


def test_with_rounding_the_logits_come_nearer(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", uneven(Tiny(tied=True)))
    expected = truth(path)
    plain = computed(path, tmp_path / "plain", Precision.INT8, smoothed=False)
    smoothed = computed(path, tmp_path / "smoothed", Precision.INT8, smoothed=True)
    assert np.square(smoothed - expected).mean() < np.square(plain - expected).mean() / 10


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_head_with_isolated_outliers_is_nearer(kind: str, tied: bool, tmp_path: Path) -> None:
    """One layer that adds nothing, so that the head's rounding is all there is."""
    norm = np.ones(64, np.float32)
    norm[[9, 50]] = 90, -70
    silent = {f"blk.0.{name}.weight": np.zeros((64, size), np.float32) for name, size in (("attn_output", 64), ("ffn_down", 96))}
    path = write_gguf(
        tmp_path / "tiny.gguf", Tiny(layers=1, tied=tied, weight_type=kind, tensors={"output_norm.weight": norm, **silent})
    )
    source = open_source(path)
    found = calibrate(source, Precision.INT8, CALIBRATION, SilentProgress())
    assert sorted(found.outliers) == [9, 50]
    errors = []
    for name, outliers in (("plain", ()), ("isolated", found.outliers)):
        (tmp_path / name).mkdir()
        write_decoder(source, tmp_path / name, Precision.INT8, replace(found, outliers=outliers), SilentProgress())
        errors.append(np.square(run_graph(open_session(tmp_path / name), IDS.tolist())[0] - truth(path)).mean())
    assert errors[1] < errors[0] / (20 if kind == "Q8_0" else 1)


def test_outliers_are_few_and_loud() -> None:
    squares = np.ones(64, np.float32)
    assert find_outliers(squares) == ()
    squares[[5, 6, 7]] = 90, 70, 80
    assert find_outliers(squares) == (5, 7)
    squares[[5, 6]] = np.inf, np.nan
    assert find_outliers(squares) == (7,)


def test_both_sides_get_the_same_spread() -> None:
    inputs, weights = np.float32([4, 1, 9, 16]), np.float32([1, 4, 25, 16])
    scales = balance(inputs**2, weights**2)
    ratios = inputs / scales / (weights * scales)
    np.testing.assert_allclose(ratios, ratios[0], rtol=2 ** (1 / STEPS_PER_OCTAVE) - 1)
    assert np.log2(scales).sum() == pytest.approx(0, abs=len(scales) / 2 / STEPS_PER_OCTAVE)


def test_sums_that_differ_in_their_last_bits_give_the_same_scales() -> None:
    inputs, weights = np.random.default_rng(3).lognormal(size=(2, 576)).astype(np.float32)
    noisy = np.nextafter(inputs, np.float32(9e9))
    np.testing.assert_array_equal(balance(inputs, weights), balance(noisy, weights))


@pytest.mark.parametrize("value", [0, np.inf, np.nan])
def test_a_channel_without_a_measure_is_left_alone(value: float) -> None:
    inputs = np.array([4, value, 9], np.float32)
    assert balance(inputs, np.ones(3, np.float32))[1] == 1
    assert balance(np.ones(3, np.float32), inputs)[1] == 1
    assert (balance(np.full(3, value, np.float32), inputs) == 1).all()


def test_scales_are_bounded() -> None:
    scales = balance(np.array([1e-30, 1, 1e30], np.float32), np.ones(3, np.float32))
    assert (scales[0], scales[2]) == (2.0**-MAX_OCTAVES, 2.0**MAX_OCTAVES)


def test_heads_of_a_group_share_their_scales() -> None:
    squares = np.arange(8, dtype=np.float32)  # 4 heads of 2, in 2 groups
    assert over_groups(squares, 4, 2).tolist() == [1, 2, 5, 6]
    assert to_heads(np.float32([1, 2, 5, 6]), 4, 2).tolist() == [1, 2, 1, 2, 5, 6, 5, 6]


def test_nothing_to_read_means_nothing_to_smooth(tmp_path: Path) -> None:
    source = open_source(write_gguf(tmp_path / "tiny.gguf", Tiny()))
    found = calibrate(source, Precision.INT8, (), SilentProgress())
    assert found == Smoothing((LayerSmoothing(), LayerSmoothing()))


@pytest.mark.parametrize(("num_parameters", "expected"), [(135_000_000, 512), (1_500_000_000, 166), (7_600_000_000, 64)])
def test_large_models_read_less(num_parameters: int, expected: int) -> None:
    assert plan_num_tokens(num_parameters) == expected


def test_the_text_is_not_the_measured_one() -> None:
    calibration, measured = (set(path.read_text(encoding="utf-8").splitlines()) - {""} for path in (TEXT, MEASURED))
    assert len(calibration) > 20
    assert not calibration & measured
