"""Scales of least error: AWQ's search (https://arxiv.org/abs/2306.00978), over how much inputs and how much weights decide.

The error is that of the products on calibration text, both sides rounded as they will be when the model runs: weights to 4 bits,
inputs to 8. Weights go to the nearest, whatever rounds them in the end: a search by k-quants is slower and chose no better. Pure.

Scales that make a layer's activations and weights equally easy to round, without changing what the layer computes.

A product rounds both its sides to 8 bits per block of channels, so a channel much larger than its neighbours costs them
their precision, on either side. Dividing an input channel by s and multiplying the weights that read it by s changes
nothing; s = sqrt(rms(input) / rms(weights)) gives both sides the same spread (after SmoothQuant, Xiao et al., 2023).
Inputs are divided where they are made: in norm weights, in rows of v (for the output projection), in rows of up (for
the down projection). The head cannot be scaled, as it is the embedding too or is stored exactly: there the loudest
channels are isolated instead, each in a block of its own. Knows the layer's shape; reads no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.quantizers.recipe import InputFigures
from model_registry.conversion.quantizers.rtn import quantize

Floats = NDArray[np.float32]
MAX_ROWS, MAX_SAMPLES = 96, 256  # of weights and of inputs that errors are measured on
_EXPONENTS = ((0.5, 0.5), (0.0, 0.0), (0.25, 0.0), (0.5, 0.0), (0.25, 0.25))  # of inputs, of weights


@dataclass(frozen=True, slots=True)
class Rounded:
    """A matrix [rows, columns] and how it will be stored, with 4 bits."""

    weights: Floats
    block: int
    is_symmetric: bool


def search_scales(
    inputs: Floats,
    weights: Floats,
    matrices: Sequence[Rounded],
    samples: Floats,
    spread: Callable[[Floats], Floats] = lambda scales: scales,
) -> Floats:
    """The balance of inputs and weights (squares per channel) with the least error; the first of those that are equal.

    matrices: that are given `samples`, [samples, columns]. spread: from channels to columns.
    """
    with np.errstate(all="ignore"):
        tried = [balance(inputs, weights, *exponents) for exponents in _EXPONENTS]
        errors = [_output_error(matrices, samples, spread(scales)) for scales in tried]
    return tried[int(np.argmin(np.nan_to_num(errors, nan=np.inf)))]


def _output_error(matrices: Sequence[Rounded], samples: Floats, scales: Floats) -> float:
    """Squared error of all products, with inputs divided and weights multiplied by `scales`."""
    divided = samples / scales
    error = 0.0
    for matrix in matrices:
        rows = matrix.weights[:: -(-len(matrix.weights) // MAX_ROWS)]
        stored = quantize(rows * scales, 4, matrix.block, is_symmetric=matrix.is_symmetric).values(4)
        error += float(np.square(_rounded(divided, matrix.block) @ stored.T - samples @ rows.T).sum(dtype=np.float64))
    return error


def _rounded(x: Floats, block: int) -> Floats:
    """The input as MatMulNBits rounds it: 8 bits, symmetric, per block."""
    blocks = x.reshape(len(x), -1, block)
    steps = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    steps = np.where(steps > 0, steps, np.float32(1))
    return np.asarray(np.rint(blocks / steps) * steps, np.float32).reshape(x.shape)


MAX_OCTAVES = 10  # up or down: a channel that was silent in the calibration may speak later
STEPS_PER_OCTAVE = 4  # coarse on purpose: sums that differ in their last bits between machines still give the same build


MAX_OUTLIERS, OUTLIER_RATIO = 2, 8.0  # the most channels to isolate; the least ratio of their rms to the median channel's


@dataclass(frozen=True, slots=True)
class LayerSmoothing:
    """Scales of one layer; None where nothing is smoothed.

    attention: [hidden], of q, k and v columns. value: [kv_heads * head_size], of v rows; the query heads of a group share
    them. ffn: [hidden], of gate and up columns. gated: [ffn], of up rows and down columns.
    inputs: statistics of the smoothed inputs, by the name of the first of the matrices that share one; only where a recipe needs
    them.
    """

    attention: Floats | None = None
    value: Floats | None = None
    ffn: Floats | None = None
    gated: Floats | None = None
    inputs: Mapping[str, InputFigures] = field(default_factory=dict)

    @property
    def is_smoothed(self) -> bool:
        return any(scales is not None for scales in (self.attention, self.value, self.ffn, self.gated))


@dataclass(frozen=True, slots=True)
class Smoothing:
    """The smoothing of every layer, and the channels of the head's input that are isolated."""

    layers: tuple[LayerSmoothing, ...]
    outliers: tuple[int, ...] = ()

    @property
    def is_smoothed(self) -> bool:
        return any(layer.is_smoothed for layer in self.layers)

    def factors(self) -> dict[str, Floats]:
        """Every scale by `LAYER.KIND`, KIND as in `LayerSmoothing`."""
        kinds = ("attention", "value", "ffn", "gated")
        found = {f"{number}.{kind}": getattr(layer, kind) for number, layer in enumerate(self.layers) for kind in kinds}
        return {name: scales for name, scales in found.items() if scales is not None}


def find_outliers(inputs: Floats) -> tuple[int, ...]:
    """The channels with the largest mean squares, largest first, if they far exceed the median channel."""
    squares = np.where(np.isfinite(inputs), inputs, 0)
    largest = np.argsort(-squares, kind="stable")[:MAX_OUTLIERS]
    return tuple(int(channel) for channel in largest if squares[channel] > OUTLIER_RATIO**2 * np.median(squares))


def balance(inputs: Floats, weights: Floats, of_inputs: float = 0.5, of_weights: float = 0.5) -> Floats:
    """rms of input^of_inputs / rms of weights^of_weights per channel, around a geometric mean of 1. Both: squares, in any unit.

    A channel for which either is zero or not finite is not scaled.
    """
    usable = np.isfinite(inputs) & np.isfinite(weights) & (inputs > 0) & (weights > 0)
    if not usable.any():
        return np.ones(inputs.shape, np.float32)
    logs = np.zeros(inputs.shape)
    log_inputs, log_weights = (np.log(squares[usable], dtype=np.float64) / 2 for squares in (inputs, weights))
    logs[usable] = of_inputs * log_inputs - of_weights * log_weights
    logs[usable] -= logs[usable].mean()
    octaves = np.clip(logs / np.log(2), -MAX_OCTAVES, MAX_OCTAVES)
    scales: Floats = np.exp2(np.round(octaves * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE).astype(np.float32)
    return scales


def over_groups(squares: Floats, num_heads: int, num_kv_heads: int) -> Floats:
    """Mean squares [heads * size] as [kv_heads * size]: the mean over the query heads that share a key/value head."""
    mean: Floats = squares.reshape(num_kv_heads, num_heads // num_kv_heads, -1).mean(axis=1).reshape(-1)
    return mean


def to_heads(scales: Floats, num_heads: int, num_kv_heads: int) -> Floats:
    """Scales [kv_heads * size] as each query head sees them, [heads * size]."""
    return np.repeat(scales.reshape(num_kv_heads, -1), num_heads // num_kv_heads, axis=0).reshape(-1)
