"""GPTQ: rounds a row's weights one after another, and corrects the following ones for the error (https://arxiv.org/abs/2210.17323).

Rows are independent given the inputs' Gram matrix, so a matrix may be rounded in pieces. Pure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.quantizers.kquant import quantize_k
from model_registry.conversion.quantizers.rtn import Blocks, inverse, pack_pairs

Floats = NDArray[np.float32]
_DAMPING = 0.01  # of the mean diagonal, as the paper has it
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


def quantize_gptq(values: Floats, block: int, upper: Floats, *, is_symmetric: bool = True) -> Blocks:
    """[rows, columns] as 4-bit blocks. upper: as `upper_factor` gives it, for the inputs of these columns."""
    left = values.astype(np.float32, copy=True)
    rows, columns = left.shape
    integers = np.empty((rows, columns), np.uint8)
    scales, zeros = np.empty((rows, columns // block), np.float32), np.full((rows, columns // block), 8, np.uint8)
    lazy = max(_LAZY // block, 1) * block
    for start in range(0, columns, lazy):
        end = min(start + lazy, columns)
        errors = np.empty((rows, end - start), np.float32)
        for column in range(start, end):
            place = column // block
            if column % block == 0:
                found = quantize_k(left[:, column : column + block], 4, block, is_symmetric=is_symmetric)
                scales[:, place] = found.scales[:, 0]
                if found.zeros is not None:
                    zeros[:, place] = found.zeros[:, 0]
            zero = zeros[:, place].astype(np.float32)
            nearest = np.clip(np.rint(left[:, column] * inverse(scales[:, place])) + zero, 0, 15)
            integers[:, column] = nearest
            error = (left[:, column] - (nearest - zero) * scales[:, place]) / upper[column, column]
            left[:, column + 1 : end] -= np.outer(error, upper[column, column + 1 : end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    return Blocks(pack_pairs(integers.reshape(rows, columns // block, block)), scales, None if is_symmetric else zeros)
