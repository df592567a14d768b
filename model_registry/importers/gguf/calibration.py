"""Finds how to smooth a model: reads a text with the source model and watches what its matrices are given.

Owns the text, how much of it is read, and which matrices are smoothed. One layer is in memory at a time. The text is
not the one that perplexity is measured on. Knows nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_registry.importers.gguf.architecture import Architecture
from model_registry.importers.gguf.gptq import upper_factor
from model_registry.importers.gguf.quantize import choose_bits, is_exact
from model_registry.importers.gguf.reader import GgufFile
from model_registry.importers.gguf.reference import Block, Floats, embed, final_norm
from model_registry.importers.gguf.smoothing import LayerSmoothing, Smoothing, balance, find_outliers, over_groups, to_heads
from model_registry.importers.recipe import Recipe
from model_registry.progress import Progress
from model_registry.records import Precision

TEXT = Path(__file__).parents[2] / "data" / "calibration.txt"
MAX_TOKENS, MIN_TOKENS = 512, 64
PRODUCT_BUDGET = 250_000_000_000  # multiplications, a few seconds on two cores; MIN_TOKENS are read whatever they take

QKV, OUTPUT, GATE_UP, DOWN = ("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",)
_FIRST = frozenset(names[0] for names in (QKV, OUTPUT, GATE_UP, DOWN))  # of the matrices that share an input


def plan_num_tokens(num_parameters: int) -> int:
    """How much of the text to read: a channel's spread shows within few tokens."""
    return max(MIN_TOKENS, min(MAX_TOKENS, PRODUCT_BUDGET // max(1, num_parameters)))


def can_smooth(source: GgufFile, precision: Precision, layer: int, names: Sequence[str], recipe: Recipe | None = None) -> bool:
    """Whether the matrices, which share an input, are rounded to 8 bits: what is kept exactly is left as it is."""
    if recipe is not None:
        told = {recipe.bits_of(f"blk.{layer}.{name}", is_head=False) for name in names}
        return told == {8} or (4 in told and recipe.smooths_4 and 32 not in told)
    kinds = [source.tensors[f"blk.{layer}.{name}.weight"].type for name in names]
    bits = choose_bits(kinds, precision, is_head=False)
    return bits == 8 and not any(is_exact(kind, bits) for kind in kinds)


def calibrate(
    source: GgufFile,
    architecture: Architecture,
    precision: Precision,
    windows: Sequence[NDArray[np.int64]],
    progress: Progress,
    recipe: Recipe | None = None,
) -> Smoothing:
    """windows: token ids, each read from an empty context. Reads nothing when nothing will be rounded.

    recipe: decides instead of precision what is rounded, and how.
    """
    layers = range(architecture.num_layers)
    sites = (QKV, OUTPUT, GATE_UP, DOWN)
    if not windows or precision is Precision.FP32:
        return Smoothing((LayerSmoothing(),) * len(layers))
    progress.stage("calibrating")
    hidden, found = embed(source, architecture, windows), []
    for layer in layers:
        spread = _Spread(keeps_grams=recipe is not None and recipe.uses_gptq)
        block = Block(source, architecture, layer, spread.observe)
        with np.errstate(all="ignore"):  # a channel that overflows is left alone by `balance`
            hidden = [block.run(states) for states in hidden]
        attention, value, ffn, gated = (
            _scales(architecture, block, spread, names) if can_smooth(source, precision, layer, names, recipe) else None
            for names in sites
        )
        uppers = {}
        if recipe is not None and recipe.uses_gptq:
            heads = architecture.num_heads, architecture.num_kv_heads
            output = None if value is None else to_heads(value, *heads)
            uppers = {
                names[0]: spread.upper(names[0], factors)
                for names, factors in zip(sites, (attention, output, ffn, gated), strict=True)
                if any(recipe.bits_of(f"blk.{layer}.{name}", is_head=False) == 4 for name in names)
            }
        found.append(LayerSmoothing(attention, value, ffn, gated, uppers))
        progress.update(layer + 1, len(layers))
    with np.errstate(all="ignore"):
        head = np.sum([_squares(final_norm(source, architecture, states)) for states in hidden], axis=0)
    return Smoothing(tuple(found), find_outliers(head))


class _Spread:
    """Mean squares per channel of each matrix's input, over all windows; and on demand the whole Gram matrix."""

    def __init__(self, *, keeps_grams: bool = False) -> None:
        self._grams: dict[str, Floats] | None = {} if keeps_grams else None
        self._sums: dict[str, Floats] = {}
        self._counts: dict[str, int] = {}

    def observe(self, name: str, x: Floats) -> None:
        self._sums[name] = self._sums.get(name, np.float32(0)) + _squares(x)
        self._counts[name] = self._counts.get(name, 0) + len(x)
        if self._grams is not None and name in _FIRST:
            self._grams[name] = self._grams.get(name, np.float32(0)) + x.T @ x

    def upper(self, name: str, factors: Floats | None) -> Floats:
        """For GPTQ. factors: what the inputs will come divided by."""
        assert self._grams is not None
        gram = self._grams[name]
        return upper_factor(gram if factors is None else gram / np.outer(factors, factors))

    def mean_squares(self, name: str) -> Floats:
        return self._sums[name] / np.float32(self._counts[name])


def _squares(x: Floats) -> Floats:
    """Sums of squares over rows."""
    total: Floats = np.einsum("rc,rc->c", x, x)
    return total


def _scales(architecture: Architecture, block: Block, spread: _Spread, names: Sequence[str]) -> Floats:
    with np.errstate(all="ignore"):
        inputs = spread.mean_squares(names[0])
        weights = np.sum([_squares(block.weights[name]) for name in names], axis=0)
        if names == OUTPUT:
            heads = architecture.num_heads, architecture.num_kv_heads
            inputs, weights = over_groups(inputs, *heads), over_groups(weights, *heads)
    return balance(inputs, weights)
