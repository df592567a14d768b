"""Blocks whose scale and zero are searched for the least weighted error, after llama.cpp's k-quants. Pure.

What ranges over many steps is tried: the range itself, wider, and narrower, where the outermost values are cut. Each try's integers
have one scale that fits them best, by least squares, and the try with the least error stays. (llama.cpp's own search fits scale
and minimum; here zero is an integer, as MatMulNBits has it, so it is the rounded zero that is judged.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.quantizers.rtn import Blocks, inverse, pack_pairs

Floats = NDArray[np.float32]
_CUTS = np.array([-0.06, -0.03, 0.0, 0.03, 0.06, 0.1, 0.14, 0.18, 0.23, 0.28], np.float32)  # of the range
_VALUES_AT_A_TIME = 1 << 16  # 256 KB: what a try reads again and again stays in the processor's cache


def quantize_k(values: Floats, bits: int, block: int, importance: Floats | None = None, *, is_symmetric: bool = False) -> Blocks:
    """[rows, columns] as blocks. importance: mean squares of the columns' inputs, [columns], by which errors are weighed."""
    rows, columns = values.shape
    step = max(1, _VALUES_AT_A_TIME // columns)
    shape = (1, columns // block, block)
    weights = np.ones(shape, np.float32) if importance is None else _usable(importance).reshape(shape)
    pieces = [
        _search(values[start : start + step].reshape(-1, columns // block, block), weights, bits, is_symmetric=is_symmetric)
        for start in range(0, rows, step)
    ]
    integers, scales, zeros = (np.concatenate(each) for each in zip(*pieces, strict=True))
    return Blocks(pack_pairs(integers) if bits == 4 else integers, scales, None if is_symmetric else zeros)


def _usable(importance: Floats) -> Floats:
    """Around 1, and never quite 0: a channel that was silent may speak later."""
    finite = np.where(np.isfinite(importance), importance, 0)
    mean = float(finite.mean(dtype=np.float64)) or 1.0
    return (finite / mean + 0.01).astype(np.float32)


def _search(
    blocks: Floats, weights: Floats, bits: int, *, is_symmetric: bool
) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8]]:
    """(integers, scales, zeros) of [rows, blocks, size].

    With integers q and the scale that fits them best, the weighted error is sum(w x^2) - sum(w x q)^2 / sum(w q^2).
    """
    top, middle = np.float32(2**bits - 1), np.float32(2 ** (bits - 1))
    peaks = np.abs(blocks).max(axis=-1)
    blocks = blocks * inverse(peaks)[..., None]  # so that no square leaves float32's range
    low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
    ends = np.where(high > -low, high, low) / -middle if is_symmetric else high / top - low / top
    weights = weights * np.sqrt(np.square(blocks).mean(axis=-1, keepdims=True) + np.square(blocks))  # llama.cpp's importance
    weighted_blocks = weights * blocks
    shape = low.shape
    most, factors, scales = np.full(shape, -1, np.float32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    zeros = np.full(shape, middle, np.float32)
    for cut in _CUTS:
        factor = inverse(ends * (1 - cut))
        zero = np.full(shape, middle) if is_symmetric else np.clip(np.rint(-low * (1 - cut / 2) * factor), 0, top)
        steps = _steps(blocks, factor, zero, top)
        along, power = np.einsum("rbs,rbs->rb", weighted_blocks, steps), np.einsum("rbs,rbs,rbs->rb", weights, steps, steps)
        fit = along * inverse(power)
        better = fit * along > most
        most = np.where(better, fit * along, most)
        factors, scales, zeros = (np.where(better, *pair) for pair in ((factor, factors), (fit, scales), (zero, zeros)))
    integers = (_steps(blocks, factors, zeros, top) + zeros[..., None]).astype(np.uint8)
    return integers, scales * peaks, zeros.astype(np.uint8)


def _steps(blocks: Floats, factors: Floats, zeros: Floats, top: np.float32) -> Floats:
    """Integers less their zeros."""
    steps = blocks * factors[..., None]
    np.rint(steps, out=steps)
    lowest = -zeros[..., None]
    return np.clip(steps, lowest, lowest + top, out=steps)
