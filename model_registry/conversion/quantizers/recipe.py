"""How each matrix is to be rounded, when that is told instead of left to the importer. Values only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

FLOAT, HALF = 32, 16
BLOCK = 32  # what rows of every model that can be rounded divide by

Rounding = Literal["nearest", "k-quant", "gptq"]


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
        wish = self.block_4 if bits == 4 else self.block_8
        return next((block for block in (wish, wish // 2, wish // 4) if block >= BLOCK and columns % block == 0), min(wish, BLOCK))

    def rounding_of(self, bits: int) -> Rounding:
        return self.rounding_4 if bits == 4 else "nearest"

    def is_symmetric(self, bits: int) -> bool:
        return self.symmetric_4 if bits == 4 else self.symmetric_8
