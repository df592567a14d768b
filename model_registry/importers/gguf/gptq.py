"""GPTQ: rounds a row's weights one after another, and lets those to come make up for the error (https://arxiv.org/abs/2210.17323).

Rows are independent given the inputs' Gram matrix, so a matrix may be rounded in pieces. Pure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_registry.importers.gguf.quantize import Blocks, pack_pairs

Floats = NDArray[np.float32]
_DAMPING = 0.01  # of the mean diagonal, as the paper has it
_SHRINKS = np.linspace(1.0, 0.7, 13, dtype=np.float32)  # of a block's scale: to cut its largest value may cost less
_LAZY = 128  # columns whose errors are carried over together


def upper_factor(gram: Floats) -> Floats:
    """The upper Cholesky factor of the damped Gram matrix's inverse. gram: sums of x x^T, [columns, columns]."""
    matrix = gram.astype(np.float64)
    diagonal = np.einsum("ii->i", matrix)
    dead = diagonal == 0
    diagonal[dead] = 1.0
    diagonal += _DAMPING * diagonal[~dead].mean() if not dead.all() else 0.0
    inverse = np.linalg.inv(matrix)
    return np.ascontiguousarray(np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float32))


def quantize_gptq(values: Floats, block: int, upper: Floats) -> Blocks:
    """[rows, columns] as 4-bit blocks around 8. upper: as `upper_factor` gives it, for the inputs of these columns."""
    left = values.astype(np.float32, copy=True)
    rows, columns = left.shape
    integers = np.empty((rows, columns), np.uint8)
    scales = np.empty((rows, columns // block), np.float32)
    lazy = max(_LAZY // block, 1) * block
    for start in range(0, columns, lazy):
        end = min(start + lazy, columns)
        errors = np.empty((rows, end - start), np.float32)
        for column in range(start, end):
            if column % block == 0:
                scales[:, column // block] = best_scales(left[:, column : column + block])
            scale = scales[:, column // block]
            with np.errstate(divide="ignore", invalid="ignore"):
                nearest = np.clip(np.nan_to_num(np.rint(left[:, column] / scale)) + 8, 0, 15)
            integers[:, column] = nearest
            error = (left[:, column] - (nearest - 8) * scale) / upper[column, column]
            left[:, column + 1 : end] -= np.outer(error, upper[column, column + 1 : end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    return Blocks(pack_pairs(integers.reshape(rows, columns // block, block)), scales)


def best_scales(values: Floats) -> Floats:
    """Of blocks [rows, size], the scale around 8 with the least squared error among some; [rows]."""
    high, low = values.max(axis=1), values.min(axis=1)
    largest = np.where(high > -low, high, low) / np.float32(-8)
    best, least = largest, np.full(len(values), np.inf, np.float32)
    for shrink in _SHRINKS:
        scale = (largest * shrink)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            rounded = np.clip(np.nan_to_num(np.rint(values / scale)), -8, 7) * scale
        error = np.square(values - rounded).sum(axis=1)
        better = error < least
        best, least = np.where(better, scale[:, 0], best), np.where(better, error, least)
    return np.asarray(best, np.float32)
