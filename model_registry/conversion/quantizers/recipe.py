"""How each matrix is stored: the width and block that a precision or a recipe gives it, and what rounds it. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.quantizers.gptq import quantize_gptq
from model_registry.conversion.quantizers.kquant import quantize_k
from model_registry.conversion.quantizers.rtn import Blocks, quantize
from model_registry.records import Precision

FLOAT_BITS, HALF_BITS = 32, 16
BLOCK = 32  # what rows of every model that can be rounded divide by, and of what is rounded to 4 bits
WIDE_BLOCK = 64  # of what is rounded to 8 bits: as good as 32 once activations are smoothed, and computed faster

Floats = NDArray[np.float32]
Rounding = Literal["nearest", "k-quant", "gptq"]
Group = Literal["attention", "gate", "up", "down"]
Algorithm = Literal["rtn", "k-quant", "gptq", "awq"]
GROUPS: dict[Group, tuple[str, ...]] = {
    "attention": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "gate": ("ffn_gate",),
    "up": ("ffn_up",),
    "down": ("ffn_down",),
}
_ROUNDINGS: dict[Algorithm, Rounding] = {"rtn": "nearest", "k-quant": "k-quant", "gptq": "gptq", "awq": "k-quant"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """bits: of the layers' matrices, 4, 8, 16 or 32; head_bits: of the head and the embedding.

    exceptions: names of matrices (`blk.3.ffn_down`; of fused q, k and v the first) with their own bits.
    block_4, block_8: weights per scale, a power of two; half or a quarter of it where rows do not divide by it.
    rounding_4: of 4 bits: value by value; by a search for each block's scale and zero (as llama.cpp's k-quants); or so that each
    row's error on calibration text is least (GPTQ, https://arxiv.org/abs/2210.17323). 8 bits are always rounded value by value.
    symmetric_4, symmetric_8: whether blocks have no zeros of their own.
    smooths_4: whether inputs of 4-bit matrices are smoothed too. searches_scales: whether their scales are those of least error on
    calibration text (AWQ, https://arxiv.org/abs/2306.00978) instead of one formula's.
    """

    bits: int = 8
    head_bits: int = 8
    exceptions: Collection[str] = field(default=frozenset())
    exception_bits: int = 8
    block_4: int = 32
    block_8: int = 64
    rounding_4: Rounding = "nearest"
    symmetric_4: bool = True
    symmetric_8: bool = False
    smooths_4: bool = True
    searches_scales: bool = False

    def bits_of(self, name: str, *, is_head: bool) -> int:
        if is_head:
            return self.head_bits
        return self.exception_bits if name in self.exceptions else self.bits

    def block_of(self, bits: int, columns: int) -> int:
        preferred = self.block_4 if bits == 4 else self.block_8
        return next(
            (block for block in (preferred, preferred // 2, preferred // 4) if block >= BLOCK and columns % block == 0),
            min(preferred, BLOCK),
        )

    def rounding_of(self, bits: int) -> Rounding:
        return self.rounding_4 if bits == 4 else "nearest"

    def is_symmetric(self, bits: int) -> bool:
        return self.symmetric_4 if bits == 4 else self.symmetric_8


def plain_recipe(
    algorithm: Algorithm,
    bits: int,
    head_bits: int,
    *,
    exceptions: Collection[str] = (),
    block_size: int | None = None,
    is_symmetric: bool | None = None,
) -> Recipe:
    """is_symmetric: by default only 4 bits by rtn are."""
    return Recipe(
        bits=bits,
        head_bits=head_bits,
        exceptions=frozenset(exceptions),
        block_4=block_size or 32,
        block_8=block_size or 64,
        rounding_4=_ROUNDINGS[algorithm],
        symmetric_4=algorithm == "rtn" if is_symmetric is None else is_symmetric,
        symmetric_8=bool(is_symmetric),
        searches_scales=algorithm == "awq",
    )


def choose_bits(exact: Collection[int | None], precision: Precision, *, is_head: bool) -> int:
    """8, 4, HALF_BITS or FLOAT_BITS for a matrix made of tensors with these `exact_bits`. AUTO keeps 4 exact bits, else takes 8."""
    if precision in (Precision.FP32, Precision.FP16):
        return FLOAT_BITS if precision is Precision.FP32 else HALF_BITS
    if precision is Precision.INT4:
        return 8 if is_head else 4
    return 4 if precision is Precision.AUTO and all(each == 4 for each in exact) else 8


def is_exact(exact: int | None, bits: int) -> bool:
    """Whether `bits` hold a tensor with these `exact_bits` without rounding."""
    return bits in (FLOAT_BITS, HALF_BITS) or (exact is not None and exact <= bits)


def choose_block(exact: Collection[int | None], bits: int, columns: int) -> int:
    """The block size of a matrix made of tensors with these `exact_bits`."""
    is_rounded = not any(is_exact(each, bits) for each in exact)
    return WIDE_BLOCK if bits == 8 and is_rounded and columns % WIDE_BLOCK == 0 else BLOCK


@dataclass(frozen=True, slots=True)
class InputFigures:
    """Statistics of a matrix's inputs on calibration text, after smoothing if there is any.

    importance: mean squares, [columns]. upper: for GPTQ, the upper factor of the Gram matrix; None if not requested.
    """

    importance: Floats
    upper: Floats | None = None


@dataclass(frozen=True, slots=True)
class RoundingSpec:
    """The algorithm of a rounding.

    inputs: None if unknown: then every column has the same weight, and GPTQ rounds as k-quant does.
    """

    rounding: Rounding
    is_symmetric: bool
    inputs: InputFigures | None = None

    def blocks(self, values: Floats, bits: int, block: int) -> Blocks:
        """[rows, columns], already smoothed."""
        if self.rounding == "nearest":
            return quantize(values, bits, block, is_symmetric=self.is_symmetric)
        upper = None if self.inputs is None else self.inputs.upper
        if self.rounding == "gptq" and upper is not None:
            return quantize_gptq(values, block, upper, is_symmetric=self.is_symmetric)
        importance = None if self.inputs is None else self.inputs.importance
        return quantize_k(values, bits, block, importance, is_symmetric=self.is_symmetric)
