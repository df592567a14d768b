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
from model_registry.importers.gguf.quantize import choose_bits, is_exact
from model_registry.importers.gguf.reader import GgufFile
from model_registry.importers.gguf.reference import Block, Floats, embed, final_norm
from model_registry.importers.gguf.smoothing import LayerSmoothing, Smoothing, balance, find_outliers, over_groups
from model_registry.progress import Progress
from model_registry.records import Precision

TEXT = Path(__file__).parents[2] / "data" / "calibration.txt"
MAX_TOKENS, MIN_TOKENS = 512, 64
PRODUCT_BUDGET = 250_000_000_000  # multiplications, a few seconds on two cores; MIN_TOKENS are read whatever they take

QKV, OUTPUT, GATE_UP, DOWN = ("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",)


def plan_num_tokens(num_parameters: int) -> int:
    """How much of the text to read: a channel's spread shows within few tokens."""
    return max(MIN_TOKENS, min(MAX_TOKENS, PRODUCT_BUDGET // max(1, num_parameters)))


def can_smooth(source: GgufFile, precision: Precision, layer: int, names: Sequence[str]) -> bool:
    """Whether the matrices, which share an input, are rounded to 8 bits: what is kept exactly is left as it is."""
    kinds = [source.tensors[f"blk.{layer}.{name}.weight"].type for name in names]
    bits = choose_bits(kinds, precision, is_head=False)
    return bits == 8 and not any(is_exact(kind, bits) for kind in kinds)


def calibrate(
    source: GgufFile,
    architecture: Architecture,
    precision: Precision,
    windows: Sequence[NDArray[np.int64]],
    progress: Progress,
) -> Smoothing:
    """windows: token ids, each read from an empty context. Reads nothing when nothing will be rounded to 8 bits."""
    layers = range(architecture.num_layers)
    sites = (QKV, OUTPUT, GATE_UP, DOWN)
    if not windows or precision is Precision.FP32:
        return Smoothing((LayerSmoothing(),) * len(layers))
    progress.stage("calibrating")
    hidden, found = embed(source, architecture, windows), []
    for layer in layers:
        spread = _Spread()
        block = Block(source, architecture, layer, spread.observe)
        with np.errstate(all="ignore"):  # a channel that overflows is left alone by `balance`
            hidden = [block.run(states) for states in hidden]
        attention, value, ffn, gated = (
            _scales(architecture, block, spread, names) if can_smooth(source, precision, layer, names) else None for names in sites
        )
        found.append(LayerSmoothing(attention, value, ffn, gated))
        progress.update(layer + 1, len(layers))
    with np.errstate(all="ignore"):
        head = np.sum([_squares(final_norm(source, architecture, states)) for states in hidden], axis=0)
    return Smoothing(tuple(found), find_outliers(head))


class _Spread:
    """Mean squares per channel of each matrix's input, over all windows."""

    def __init__(self) -> None:
        self._sums: dict[str, Floats] = {}
        self._counts: dict[str, int] = {}

    def observe(self, name: str, x: Floats) -> None:
        self._sums[name] = self._sums.get(name, np.float32(0)) + _squares(x)
        self._counts[name] = self._counts.get(name, 0) + len(x)

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
