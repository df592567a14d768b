"""How each matrix is to be rounded, when that is told instead of left to the importer. Values only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

FLOAT = 32


@dataclass(frozen=True, slots=True)
class Recipe:
    """bits: of the layers' matrices, 4, 8 or 32; head_bits: of the head and the embedding.

    exceptions: names of matrices (`blk.3.ffn_down`; of fused q, k and v the first) with their own bits.
    block_4, block_8: weights per scale, where rows divide by it, else 32. uses_gptq: whether 4 bits are rounded so that each
    row's error on calibration text is least (GPTQ, https://arxiv.org/abs/2210.17323), not value by value.
    smooths_4: whether inputs of 4-bit matrices are smoothed too.
    """

    bits: int = 8
    head_bits: int = 8
    exceptions: Collection[str] = field(default=frozenset())
    exception_bits: int = 8
    block_4: int = 32
    block_8: int = 64
    uses_gptq: bool = False
    smooths_4: bool = True

    def bits_of(self, name: str, *, is_head: bool) -> int:
        if is_head:
            return self.head_bits
        return self.exception_bits if name in self.exceptions else self.bits

    def block_of(self, bits: int, columns: int) -> int:
        wish = self.block_4 if bits == 4 else self.block_8
        return wish if columns % wish == 0 else 32
