"""Finds how to smooth a model: reads a text with the source model and records the inputs of its matrices.

Owns the text, how much of it is read, and which matrices are smoothed. One layer is in memory at a time. The text is
not the one that perplexity is measured on. Knows nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.measure.reference import Block, embed, final_norm
from model_registry.conversion.quantizers.gptq import upper_factor
from model_registry.conversion.quantizers.recipe import InputFigures, Recipe, choose_bits, is_exact
from model_registry.conversion.quantizers.smoothing import (
    MAX_SAMPLES,
    LayerSmoothing,
    Rounded,
    Smoothing,
    balance,
    find_outliers,
    over_groups,
    search_scales,
    to_heads,
)
from model_registry.conversion.source import Floats, TensorSource
from model_registry.progress import Progress
from model_registry.records import Precision

TEXT = Path(__file__).parents[2] / "data" / "calibration.txt"
MAX_TOKENS, MIN_TOKENS = 512, 64
PRODUCT_BUDGET = 250_000_000_000  # multiplications, a few seconds on two cores; MIN_TOKENS are read whatever they take

QKV, OUTPUT, GATE_UP, DOWN = ("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",)
SITES = (QKV, OUTPUT, GATE_UP, DOWN)  # matrices that share an input
_FIRST = tuple(names[0] for names in SITES)


def plan_num_tokens(num_parameters: int) -> int:
    """The number of tokens of the text to read: few suffice for a channel's spread."""
    return max(MIN_TOKENS, min(MAX_TOKENS, PRODUCT_BUDGET // max(1, num_parameters)))


def can_smooth(source: TensorSource, precision: Precision, layer: int, names: Sequence[str], recipe: Recipe | None = None) -> bool:
    """Whether the matrices, which share an input, are rounded to 8 bits. Matrices that are kept exactly cannot be smoothed."""
    if recipe is not None:
        widths = {recipe.bits_of(f"blk.{layer}.{name}", is_head=False) for name in names}
        return widths == {8} or (4 in widths and recipe.smooths_4 and max(widths) <= 8)
    exact = [source.tensors[f"blk.{layer}.{name}.weight"].exact_bits for name in names]
    bits = choose_bits(exact, precision, is_head=False)
    return bits == 8 and not any(is_exact(each, bits) for each in exact)


def calibrate(
    source: TensorSource,
    precision: Precision,
    windows: Sequence[NDArray[np.int64]],
    progress: Progress,
    recipe: Recipe | None = None,
) -> Smoothing:
    """windows: token ids, each read from an empty context. Reads nothing when nothing will be rounded.

    recipe: decides instead of precision what is rounded, and how.
    """
    architecture = source.architecture
    layers = range(architecture.num_layers)
    if not windows or precision in (Precision.FP32, Precision.FP16):
        return Smoothing((LayerSmoothing(),) * len(layers))
    progress.stage("calibrating")
    hidden, found = embed(source, windows), []
    for layer in layers:
        observed = _Observed(recipe)
        block = Block(source, layer, observed.observe)
        with np.errstate(all="ignore"):  # a channel that overflows is left alone by `balance`
            hidden = [block.run(states) for states in hidden]
        attention, value, ffn, gated = (
            _scales(architecture, block, observed, names, layer, recipe)
            if can_smooth(source, precision, layer, names, recipe)
            else None
            for names in SITES
        )
        output = None if value is None else to_heads(value, architecture.num_heads, architecture.num_kv_heads)
        inputs = observed.figures(dict(zip(_FIRST, (attention, output, ffn, gated), strict=True)))
        found.append(LayerSmoothing(attention, value, ffn, gated, inputs))
        progress.update(layer + 1, len(layers))
    with np.errstate(all="ignore"):
        head = np.sum([_squares(final_norm(source, states)) for states in hidden], axis=0)
    return Smoothing(tuple(found), find_outliers(head))


class _Observed:
    """Statistics of each site's input over all windows: mean squares per channel; on demand the Gram matrix and samples."""

    def __init__(self, recipe: Recipe | None) -> None:
        self._recipe = recipe
        self._grams: dict[str, Floats] = {}
        self._samples: dict[str, list[Floats]] = {}
        self._sums: dict[str, Floats] = {}
        self._counts: dict[str, int] = {}

    def observe(self, name: str, x: Floats) -> None:
        if name not in _FIRST:
            return
        self._sums[name] = self._sums.get(name, np.float32(0)) + _squares(x)
        self._counts[name] = self._counts.get(name, 0) + len(x)
        if self._recipe is not None and self._recipe.rounding_4 == "gptq":
            self._grams[name] = self._grams.get(name, np.float32(0)) + x.T @ x
        if self._recipe is not None and self._recipe.searches_scales:
            self._samples.setdefault(name, []).append(x)

    def figures(self, factors: Mapping[str, Floats | None]) -> dict[str, InputFigures]:
        """factors: by site, what its inputs will come divided by."""
        if self._recipe is None or self._recipe.rounding_4 == "nearest":
            return {}
        found = {}
        for name, divisors in factors.items():
            scale = np.float32(1) if divisors is None else divisors
            gram = self._grams.get(name)
            upper = None if gram is None else upper_factor(gram / np.outer(scale, scale))
            found[name] = InputFigures(self.mean_squares(name) / scale**2, upper)
        return found

    def mean_squares(self, name: str) -> Floats:
        return self._sums[name] / np.float32(self._counts[name])

    def samples(self, name: str) -> Floats:
        """At most MAX_SAMPLES of the inputs, [samples, columns], spread over the whole text."""
        every = np.concatenate(self._samples[name])
        return every[:: -(-len(every) // MAX_SAMPLES)]


def _squares(x: Floats) -> Floats:
    """Sums of squares over rows."""
    total: Floats = np.einsum("rc,rc->c", x, x)
    return total


def _scales(
    architecture: Architecture, block: Block, observed: _Observed, names: Sequence[str], layer: int, recipe: Recipe | None
) -> Floats:
    heads = architecture.num_heads, architecture.num_kv_heads
    with np.errstate(all="ignore"):
        inputs = observed.mean_squares(names[0])
        weights = np.sum([_squares(block.weights[name]) for name in names], axis=0)
        if names == OUTPUT:
            inputs, weights = over_groups(inputs, *heads), over_groups(weights, *heads)
    if recipe is None or not recipe.searches_scales:
        return balance(inputs, weights)
    samples = observed.samples(names[0])
    size = recipe.block_of(4, samples.shape[1])
    matrices = [Rounded(block.weights[name], size, recipe.symmetric_4) for name in names]
    if names == OUTPUT:
        return search_scales(inputs, weights, matrices, samples, lambda scales: to_heads(scales, *heads))
    return search_scales(inputs, weights, matrices, samples)
