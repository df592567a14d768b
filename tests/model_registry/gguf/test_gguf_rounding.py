"""4 bits by better means than to the nearest: k-quants, GPTQ, AWQ's scales; and mixtures of two builds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_registry.conversion.formats.gguf.importer import GgufImporter, open_source
from model_registry.conversion.importer import ImportOptions
from model_registry.conversion.measure.perplexity import divergence
from model_registry.conversion.quantizers.gptq import quantize_gptq, upper_factor
from model_registry.conversion.quantizers.kquant import quantize_k
from model_registry.conversion.quantizers.mixing import HEAD, by_worth, mix, most_within, units
from model_registry.conversion.quantizers.recipe import Recipe
from model_registry.conversion.quantizers.rtn import quantize
from model_registry.conversion.quantizers.smoothing import Rounded, balance, search_scales
from model_registry.progress import SilentProgress
from tests.doubles.tiny_gguf import Tiny, run_graph, write_gguf

pytestmark = pytest.mark.model

Floats = NDArray[np.float32]
CHANCE = np.random.default_rng(5)
WEIGHTS = CHANCE.standard_normal((64, 128)).astype(np.float32)
IDS = np.random.default_rng(3).integers(3, 250, 40).tolist()


def squared(rounded: Floats, weights: Floats = WEIGHTS) -> Floats:
    return np.square(rounded - weights)


@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("block", [16, 32, 64])
def test_a_search_errs_less_than_the_nearest(block: int, is_symmetric: bool) -> None:
    searched = quantize_k(WEIGHTS, 4, block, is_symmetric=is_symmetric)
    nearest = quantize(WEIGHTS, 4, block, is_symmetric=is_symmetric)
    assert (searched.zeros is None) == is_symmetric
    assert squared(searched.values(4)).mean() < 0.95 * squared(nearest.values(4)).mean()


def test_lopsided_blocks_get_a_zero_of_their_own() -> None:
    shifted = WEIGHTS + 2
    own, middle = quantize_k(shifted, 4, 32), quantize_k(shifted, 4, 32, is_symmetric=True)
    assert squared(own.values(4), shifted).mean() < 0.6 * squared(middle.values(4), shifted).mean()


def test_loud_columns_are_rounded_better() -> None:
    importance = np.ones(128, np.float32)
    importance[::8] = 1000
    plain, reported = (squared(quantize_k(WEIGHTS, 4, 32, each).values(4)) for each in (None, importance))
    assert reported[:, ::8].mean() < 0.7 * plain[:, ::8].mean()
    assert reported.mean() > plain.mean()


@pytest.mark.parametrize("value", [0.0, 1e-42, -3e18, 3e18])
@pytest.mark.parametrize("bits", [4, 8])
def test_extreme_blocks_stay_finite(value: float, bits: int) -> None:
    values = quantize_k(np.full((1, 32), value, np.float32), bits, 32).values(bits)
    np.testing.assert_allclose(values, value, rtol=1e-5, atol=1e-40)


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_gptq_errs_less_on_the_inputs_that_it_knows(is_symmetric: bool) -> None:
    mixing = CHANCE.standard_normal((128, 128)).astype(np.float32) * 0.3 + np.eye(128, dtype=np.float32)
    inputs = CHANCE.standard_normal((1024, 128)).astype(np.float32) @ mixing
    upper = upper_factor(inputs.T @ inputs)
    rounded = quantize_gptq(WEIGHTS, 32, upper, is_symmetric=is_symmetric)
    searched = quantize_k(WEIGHTS, 4, 32, is_symmetric=is_symmetric)
    errors = [float(np.linalg.norm(inputs @ (WEIGHTS - each.values(4)).T)) for each in (rounded, searched)]
    assert errors[0] < 0.8 * errors[1]
    halves = [quantize_gptq(half, 32, upper, is_symmetric=is_symmetric) for half in (WEIGHTS[:32], WEIGHTS[32:])]
    np.testing.assert_array_equal(np.concatenate([half.integers for half in halves]), rounded.integers)


def test_gptq_survives_channels_that_are_silent_and_blocks_of_zeros() -> None:
    weights = np.zeros((4, 64), np.float32)
    weights[:, 40:] = 1.0
    gram = np.zeros((64, 64), np.float32)
    gram[40:, 40:] = np.eye(24, dtype=np.float32)
    np.testing.assert_allclose(quantize_gptq(weights, 32, upper_factor(gram)).values(4), weights, atol=0.05)


def test_awq_chooses_scales_that_err_less_than_the_formula_where_the_formula_errs() -> None:
    """Inputs are as loud as their weights are small: the formula evens out the inputs, and ruins the weights."""
    spread = np.exp2(CHANCE.uniform(-4, 4, 128)).astype(np.float32)
    weights, samples = WEIGHTS / 2, CHANCE.standard_normal((64, 128)).astype(np.float32)
    samples[:, :64] *= spread[:64]
    inputs, squares = np.square(samples).mean(axis=0), np.square(weights).sum(axis=0)

    def error(scales: Floats) -> float:
        stored = quantize(weights * scales, 4, 32).values(4)
        return float(np.linalg.norm(samples / scales @ stored.T - samples @ weights.T))

    found = search_scales(inputs, squares, [Rounded(weights, 32, True)], samples)
    assert error(found) <= error(balance(inputs, squares))
    assert error(found) < 0.9 * error(np.ones(128, np.float32))


def built(source: Path, folder: Path, recipe: Recipe) -> Path:
    folder.mkdir()
    GgufImporter().run(source, folder, ImportOptions(measure=False, recipe=recipe), SilentProgress())
    return folder


def logits(folder: Path) -> Floats:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(run_graph(session, IDS)[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 4, "block_4": 16, "rounding_4": "k-quant", "symmetric_4": False},
        {"bits": 4, "head_bits": 4, "rounding_4": "k-quant", "symmetric_4": False},
        {"bits": 4, "head_bits": 4, "block_4": 64, "searches_scales": True},
        {"bits": 4, "rounding_4": "gptq", "symmetric_4": False},
        {"symmetric_8": True, "block_8": 16},
        {"head_bits": 16},
        {"bits": 16, "head_bits": 16},
        {"bits": 16, "head_bits": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("tied", [True, False])
def test_every_recipe_is_a_graph_that_resembles_the_source(changes: dict[str, Any], tied: bool, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", Tiny(tied=tied, ffn=192, hidden=96))
    found = logits(built(source, tmp_path / "built", replace(Recipe(), **changes)))
    truth = logits(built(source, tmp_path / "truth", Recipe(bits=32, head_bits=32)))
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > (0.98 if changes.get("bits") == 16 else 0.8)
    assert np.abs(found - truth).max() > 0


@pytest.mark.parametrize("tied", [True, False])
def test_a_mixture_is_what_its_recipe_builds(tied: bool, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", Tiny(tied=tied))
    four = Recipe(bits=4, head_bits=4, rounding_4="k-quant", symmetric_4=False)
    fine, coarse = built(source, tmp_path / "8", replace(four, bits=8, head_bits=8)), built(source, tmp_path / "4", four)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    mix(fine, coarse, mixed, ["blk.1.attn_q", "blk.0.ffn_down", HEAD])
    kept = [f"blk.{layer}.{name}" for layer in (0, 1) for name in ("attn_output", "ffn_gate", "ffn_up")]
    kept += ["blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v", "blk.1.ffn_down"]
    truth = built(source, tmp_path / "truth", replace(four, exceptions=frozenset(kept)))
    np.testing.assert_array_equal(logits(mixed), logits(truth))
    sizes = [(folder / "model.onnx.data").stat().st_size for folder in (mixed, truth)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_a_divergence_is_zero_of_the_same_and_grows_with_the_difference() -> None:
    truth = [CHANCE.standard_normal((70, 50)).astype(np.float32) for _ in range(2)]
    near, far = ([each + size * CHANCE.standard_normal(each.shape).astype(np.float32) for each in truth] for size in (0.1, 0.5))
    assert divergence(truth, truth) == 0
    assert divergence(truth, [each + 3 for each in truth]) == pytest.approx(0, abs=1e-5)
    assert 0 < divergence(truth, near) < divergence(truth, far)
    assert divergence(truth, near) == pytest.approx(0.1**2 / 2, rel=0.2)


def test_parts_of_a_model_are_ordered_by_damage_per_weight(tmp_path: Path) -> None:
    found = units(open_source(write_gguf(tmp_path / "tiny.gguf", Tiny(layers=10, tied=True))))
    names = [unit.name for unit in found]
    assert names[:2] == ["attn_q 0-1", "attn_q 2-3"]
    assert (names[-1], len(found)) == ("head", 26)
    assert (found[0].matrices, found[0].num_weights) == (("blk.0.attn_q", "blk.1.attn_q"), 2 * (64 + 32 + 32) * 64)
    assert found[-1].num_weights == 272 * 64
    damages = {unit.name: unit.num_weights * (0.2 if "up" in unit.name else 0.1) for unit in found} | {"head": 1.0}
    ordered = by_worth(found, damages)
    assert ordered[0].name == "head"
    assert "up" not in ordered[1].name
    assert "up" in ordered[-1].name


@pytest.mark.parametrize("fitting", range(9))
def test_as_many_parts_as_fit_are_found_by_halving(fitting: int) -> None:
    counts: list[int] = []

    def ratio(count: int) -> float:
        counts.append(count)
        return 1 + 0.01 * count

    assert most_within(9, ratio, 1 + 0.01 * fitting + 0.001) == fitting
    assert len(counts) <= 4
