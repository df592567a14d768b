"""Weights as blocks of 32 integers with one scale each, as MatMulNBits and GatherBlockQuantized read them. Pure.

value = scale * (integer - zero), zero = 128 for 8 bits and 8 for 4 bits; 4-bit integers lie two to a byte, low half
first. GGUF's Q8_0 and Q4_0 are this very form, so they are repacked bit for bit; every other type is rounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model_registry.errors import CorruptModel
from model_registry.importers.gguf.reader import dequantize
from model_registry.records import Precision

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

BLOCK = 32
FLOAT_BITS = 32


@dataclass(frozen=True, slots=True)
class Blocks:
    """integers: uint8 [rows, blocks, bytes per block]; scales: float32 [rows, blocks]."""

    integers: NDArray[np.uint8]
    scales: NDArray[np.float32]


def choose_bits(kinds: Iterable[GGMLQuantizationType], precision: Precision, *, is_head: bool) -> int:
    """8, 4, or FLOAT_BITS for a matrix made of tensors of these types. AUTO keeps lossless types, else takes 8."""
    if precision is Precision.FP32:
        return FLOAT_BITS
    if precision is Precision.INT4:
        return 8 if is_head else 4
    if precision is Precision.AUTO and all(kind.name == "Q4_0" for kind in kinds):
        return 4
    return 8


def encode(raw: NDArray[np.uint8], kind: GGMLQuantizationType, bits: int, name: str) -> Blocks:
    """Stored GGUF rows as blocks of `bits`; exact when the type fits. Raises CorruptModel for non-finite values."""
    if kind.name == "Q8_0" and bits == 8:
        return _repack_q8_0(raw, name)
    if kind.name == "Q4_0":
        blocks = _repack_q4_0(raw, name)
        return blocks if bits == 4 else _widen(blocks)
    return quantize(dequantize(raw, kind, name), bits)


def quantize(values: NDArray[np.float32], bits: int) -> Blocks:
    """Round [rows, columns] to blocks; the value of largest magnitude in a block is kept exactly up to float32."""
    rows, columns = values.shape
    zero = 1 << (bits - 1)
    blocks = values.reshape(-1, BLOCK)
    high, low = blocks.max(axis=1), blocks.min(axis=1)
    scales = np.where(high > -low, high, low) / np.float32(-zero)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(np.isfinite(1 / scales), 1 / scales, 0)
    scaled = blocks * inverse[:, None]
    np.rint(scaled, out=scaled)
    scaled += zero
    np.clip(scaled, 0, 2 * zero - 1, out=scaled)
    integers = scaled.astype(np.uint8)
    packed = _pack_pairs(integers) if bits == 4 else integers
    return Blocks(packed.reshape(rows, columns // BLOCK, -1), scales.astype(np.float32).reshape(rows, -1))


def _halves(raw: NDArray[np.uint8], block_bytes: int, name: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(quant bytes [rows, blocks, block_bytes - 2], scales [rows, blocks]); each block begins with a float16 scale."""
    blocks = raw.reshape(raw.shape[0], -1, block_bytes)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)[:, :, 0]
    if not np.isfinite(scales).all():
        raise CorruptModel(f"Tensor {name} holds values that are not finite numbers. The file is damaged; fetch it again.")
    return blocks[:, :, 2:], scales.astype(np.float32)


def _repack_q8_0(raw: NDArray[np.uint8], name: str) -> Blocks:
    signed, scales = _halves(raw, 34, name)
    return Blocks(signed ^ np.uint8(0x80), scales)  # two's complement to offset 128


def _repack_q4_0(raw: NDArray[np.uint8], name: str) -> Blocks:
    """GGUF pairs value i with value i + 16 in a byte; ours pairs 2i with 2i + 1."""
    packed, scales = _halves(raw, 18, name)
    integers = np.concatenate([packed & 0x0F, packed >> 4], axis=-1)
    return Blocks(_pack_pairs(integers), scales)


def _pack_pairs(integers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values 2i and 2i + 1 of the last axis in one byte."""
    return integers[..., 0::2] | (integers[..., 1::2] << np.uint8(4))


def _widen(blocks: Blocks) -> Blocks:
    """4-bit blocks as 8-bit blocks of the same values."""
    pairs = np.stack([blocks.integers & 0x0F, blocks.integers >> 4], axis=-1)
    return Blocks(pairs.reshape(*blocks.scales.shape, BLOCK) + np.uint8(120), blocks.scales)
