"""Rows of one or more GGUF tensors as one matrix: ordered, encoded, and streamed in pieces. Knows nothing of graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_registry.errors import UnsupportedModel
from model_registry.importers.gguf.architecture import Architecture
from model_registry.importers.gguf.quantize import BLOCK, FLOAT_BITS, Blocks, choose_bits, encode
from model_registry.importers.gguf.reader import GgufFile, dequantize
from model_registry.records import Precision

PIECE_VALUES = 1 << 20  # weights handled at a time: 4 MB as float32


def rotary_order(num_heads: int, head_size: int) -> NDArray[np.intp]:
    """Where each row of a rotate-half q or k lies among the rows that llama.cpp's converter interleaved."""
    return np.arange(num_heads * head_size).reshape(num_heads, head_size // 2, 2).swapaxes(1, 2).reshape(-1)


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor by its name without `.weight`. heads: how many it has if its rows are interleaved, else 0."""

    name: str
    heads: int = 0


@dataclass(frozen=True, slots=True)
class Matrix:
    """Parts stacked by rows; every part has `columns` columns. bits: how the whole is stored."""

    source: GgufFile
    parts: tuple[Part, ...]
    bits: int
    num_rows: int
    columns: int

    def blocks(self) -> Iterator[Blocks]:
        """Quantized pieces, in row order. Only for bits other than FLOAT_BITS."""
        for part, raw in self._pieces():
            yield encode(raw, self.source.tensors[_weight(part)].type, self.bits, _weight(part))

    def floats(self) -> Iterator[NDArray[np.float32]]:
        """Dequantized pieces [rows, columns], in row order."""
        for part, raw in self._pieces():
            yield dequantize(raw, self.source.tensors[_weight(part)].type, _weight(part))

    def bias(self) -> NDArray[np.float32] | None:
        """[num_rows], zero where a part has none; None when no part has one."""
        names = [f"{part.name}.bias" for part in self.parts]
        if not any(name in self.source.tensors for name in names):
            return None
        pieces = []
        for part, name in zip(self.parts, names, strict=True):
            rows = self.source.tensors[_weight(part)].num_rows
            bias = self.source.dequantized(name) if name in self.source.tensors else np.zeros(rows, np.float32)
            pieces.append(bias if part.heads == 0 else bias[rotary_order(part.heads, rows // part.heads)])
        return np.concatenate(pieces)

    def _pieces(self) -> Iterator[tuple[Part, NDArray[np.uint8]]]:
        step = max(1, PIECE_VALUES // self.columns)
        for part in self.parts:
            raw = self.source.raw(_weight(part))
            order = rotary_order(part.heads, len(raw) // part.heads) if part.heads else None
            for start in range(0, len(raw), step):
                chosen = slice(start, start + step) if order is None else order[start : start + step]
                yield part, raw[chosen]


def make_matrix(source: GgufFile, parts: tuple[Part, ...], precision: Precision, *, is_head: bool = False) -> Matrix:
    """Decides how the parts are stored together. Raises UnsupportedModel when they cannot be."""
    tensors = [source.tensors[_weight(part)] for part in parts]
    bits = choose_bits([info.type for info in tensors], precision, is_head=is_head)
    columns = tensors[0].columns
    if bits != FLOAT_BITS and columns % BLOCK:
        raise UnsupportedModel(
            f"Tensor {tensors[0].name} has rows of {columns} values, not a multiple of {BLOCK}, so it cannot be "
            "quantized. Import with --precision fp32."
        )
    return Matrix(source, parts, bits, sum(info.num_rows for info in tensors), columns)


def attention_parts(architecture: Architecture, layer: int) -> tuple[Part, Part, Part]:
    """q, k and v of a layer, in the order of the fused projection."""
    interleaved = architecture.family.interleaved
    return (
        Part(f"blk.{layer}.attn_q", architecture.num_heads if interleaved else 0),
        Part(f"blk.{layer}.attn_k", architecture.num_kv_heads if interleaved else 0),
        Part(f"blk.{layer}.attn_v"),
    )


def _weight(part: Part) -> str:
    return f"{part.name}.weight"
