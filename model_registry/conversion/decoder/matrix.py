"""Rows of one or more tensors as one matrix: ordered, encoded, and streamed in pieces. Knows nothing of graphs or formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.quantizers.recipe import (
    BLOCK,
    HALF_BITS,
    InputFigures,
    Recipe,
    RoundingSpec,
    choose_bits,
    choose_block,
    is_exact,
)
from model_registry.conversion.quantizers.rtn import Blocks, isolate, quantize
from model_registry.conversion.source import Floats, Rows, TensorInfo, TensorSource
from model_registry.errors import UnsupportedModel
from model_registry.records import Precision

PIECE_VALUES = 1 << 20  # weights handled at a time: 4 MB as float32


def rotary_order(num_heads: int, head_size: int) -> NDArray[np.intp]:
    """For each row of a rotate-half q or k, its index among the rows that llama.cpp's converter interleaved."""
    return np.arange(num_heads * head_size).reshape(num_heads, head_size // 2, 2).swapaxes(1, 2).reshape(-1)


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor by its name without `.weight`. heads: how many it has if its rows are interleaved, else 0.

    divisors: of its rows (and bias), [rows], in the order of the file; not for interleaved rows.
    """

    name: str
    heads: int = 0
    divisors: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """Parts stacked by rows; every part has `columns` columns. bits, block: how the whole is stored.

    factors: of the columns, [columns]: the input comes divided by them. They undo the exactness of exact types.
    outliers: columns that are stored once more, each in a block of its own after the others; for 8 bits.
    rounding: of a matrix that a recipe rounds, even if its source's type could be kept exactly.
    """

    source: TensorSource
    parts: tuple[Part, ...]
    bits: int
    block: int
    num_rows: int
    columns: int
    factors: NDArray[np.float32] | None = None
    outliers: tuple[int, ...] = ()
    rounding: RoundingSpec | None = None

    @property
    def width(self) -> int:
        """Columns as stored."""
        return self.columns + len(self.outliers) * self.block

    @property
    def has_zeros(self) -> bool:
        """Whether `blocks` have zero points. Without a rounding: 8-bit blocks, unless every part keeps the file's own blocks."""
        if self.rounding is not None:
            return not self.rounding.is_symmetric
        is_kept = self.factors is None and all(is_exact(self._info(part).exact_bits, self.bits) for part in self.parts)
        return self.bits == 8 and not is_kept

    def blocks(self) -> Iterator[Blocks]:
        """Quantized pieces, in row order. Only for 4 and 8 bits."""
        for part, rows, divisors in self._pieces():
            blocks = self._encoded(part, rows)
            if blocks.zeros is None and self.has_zeros:
                blocks = replace(blocks, zeros=np.full(blocks.scales.shape, 128, np.uint8))
            if self.outliers:
                blocks = isolate(blocks, self.outliers)
            yield blocks if divisors is None else replace(blocks, scales=blocks.scales / divisors[:, None])

    def _encoded(self, part: Part, rows: Rows) -> Blocks:
        """Exactly as the source has them, where that is wanted and possible, else rounded."""
        is_plain = self.rounding is None and self.factors is None
        if is_plain and is_exact(self._info(part).exact_bits, self.bits):
            return self.source.read_blocks(_weight(part), rows, self.bits)
        values = self.source.read_rows(_weight(part), rows)
        values = values if self.factors is None else values * self.factors
        rounded = quantize if self.rounding is None else self.rounding.blocks
        return rounded(values, self.bits, self.block)

    def floats(self) -> Iterator[NDArray[np.float32]]:
        """Pieces [rows, columns], in row order."""
        for part, rows, divisors in self._pieces():
            values = self.source.read_rows(_weight(part), rows)
            if self.factors is not None:
                values = values * self.factors
            yield values if divisors is None else values / divisors[:, None]

    def halves(self) -> Iterator[NDArray[np.float16]]:
        """`floats` as float16. Raises UnsupportedModel for a value beyond its range."""
        for values in self.floats():
            with np.errstate(over="ignore"):
                halves = values.astype(np.float16)
            if not np.isfinite(halves).all():
                raise UnsupportedModel(f"{_weight(self.parts[0])} has values beyond float16's range of 65504. Use fp32 instead.")
            yield halves

    def bias(self) -> NDArray[np.float32] | None:
        """[num_rows], zero where a part has none; None when no part has one."""
        names = [f"{part.name}.bias" for part in self.parts]
        if not any(name in self.source.tensors for name in names):
            return None
        pieces = []
        for part, name in zip(self.parts, names, strict=True):
            rows = self._info(part).num_rows
            bias = self.source.read(name) if name in self.source.tensors else np.zeros(rows, np.float32)
            if part.divisors is not None:
                bias = bias / part.divisors
            pieces.append(bias if part.heads == 0 else bias[rotary_order(part.heads, rows // part.heads)])
        return np.concatenate(pieces)

    def _pieces(self) -> Iterator[tuple[Part, Rows, Floats | None]]:
        """(part, some of its rows, their divisors)."""
        step = max(1, PIECE_VALUES // self.columns)
        for part in self.parts:
            num_rows = self._info(part).num_rows
            order = rotary_order(part.heads, num_rows // part.heads) if part.heads else None
            for start in range(0, num_rows, step):
                stop = min(start + step, num_rows)
                rows = slice(start, stop) if order is None else order[start:stop]
                yield part, rows, None if part.divisors is None else part.divisors[start:stop]

    def _info(self, part: Part) -> TensorInfo:
        return self.source.tensors[_weight(part)]


def make_matrix(
    source: TensorSource,
    parts: tuple[Part, ...],
    precision: Precision,
    *,
    is_head: bool = False,
    factors: NDArray[np.float32] | None = None,
    outliers: tuple[int, ...] = (),
    recipe: Recipe | None = None,
    inputs: InputFigures | None = None,
) -> Matrix:
    """Decides how the parts are stored together; outliers matter only to 8 bits.

    recipe: decides instead of precision; inputs: what it knows of what the matrix is given.
    Raises UnsupportedModel when the parts cannot be stored so.
    """
    tensors = [source.tensors[_weight(part)] for part in parts]
    exact = [info.exact_bits for info in tensors]
    columns = tensors[0].columns
    if recipe is None:
        bits = choose_bits(exact, precision, is_head=is_head)
        block = choose_block(exact, bits, columns)
    else:
        bits = recipe.bits_of(parts[0].name, is_head=is_head)
        block = recipe.block_of(bits, columns)
    rounding = None
    if recipe is not None and bits < HALF_BITS:
        rounding = RoundingSpec(recipe.rounding_of(bits), recipe.is_symmetric(bits), inputs)
    if bits < HALF_BITS and columns % BLOCK:
        raise UnsupportedModel(
            f"Tensor {_weight(parts[0])} has rows of {columns} values, not a multiple of {BLOCK}, so it cannot be "
            "quantized. Import with --precision fp32 or fp16."
        )
    num_rows = sum(info.num_rows for info in tensors)
    isolated = outliers if bits == 8 else ()
    return Matrix(source, parts, bits, block, num_rows, columns, factors, isolated, rounding)


def attention_parts(architecture: Architecture, layer: int, value_divisors: NDArray[np.float32] | None) -> tuple[Part, Part, Part]:
    """q, k and v of a layer, in the order of the fused projection."""
    interleaved = architecture.family.interleaved
    return (
        Part(f"blk.{layer}.attn_q", architecture.num_heads if interleaved else 0),
        Part(f"blk.{layer}.attn_k", architecture.num_kv_heads if interleaved else 0),
        Part(f"blk.{layer}.attn_v", divisors=value_divisors),
    )


def _weight(part: Part) -> str:
    return f"{part.name}.weight"
