"""Scales of least error: AWQ's search (https://arxiv.org/abs/2306.00978), over how much inputs and how much weights decide.

The error is that of the products on calibration text, both sides rounded as they will be when the model runs: weights to 4 bits,
inputs to 8. Weights go to the nearest, whatever rounds them in the end: a search by k-quants is slower and chose no better. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.quantizers.rtn import quantize
from model_registry.conversion.quantizers.smoothing import balance

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
