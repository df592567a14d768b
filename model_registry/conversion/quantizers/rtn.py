"""Weights as blocks of integers with one scale each, as MatMulNBits and GatherBlockQuantized read them. Pure.

value = scale * (integer - zero). GGUF's Q8_0 and Q4_0 are this very form in blocks of 32 with zero at 128 and 8, so
they are repacked bit for bit. Every other type is rounded: to 8 bits with a zero of each block's own, to 4 bits with 8,
unless told otherwise; 4-bit integers lie two to a byte, low half first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.formats.gguf.reader import dequantize
from model_registry.errors import CorruptModel
from model_registry.records import Precision

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

BLOCK = 32  # of GGUF's own types, and of what is rounded to 4 bits
WIDE_BLOCK = 64  # of what is rounded to 8 bits: as good as 32 once activations are smoothed, and computed faster
FLOAT_BITS, HALF_BITS = 32, 16


@dataclass(frozen=True, slots=True)
class Blocks:
    """integers: uint8 [rows, blocks, bytes per block]; scales: float32 [rows, blocks].

    zeros: uint8 [rows, blocks], None where every block's is the middle of the range.
    """

    integers: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8] | None = None

    def values(self, bits: int) -> NDArray[np.float32]:
        """[rows, columns] as MatMulNBits understands the blocks."""
        integers, zeros = self.integers, np.float32(2 ** (bits - 1))
        if bits == 4:
            integers = np.stack([integers & 15, integers >> 4], axis=-1).reshape(*self.scales.shape, -1)
        steps = integers.astype(np.float32) - (zeros if self.zeros is None else self.zeros[..., None])
        return np.asarray(steps * self.scales[..., None], np.float32).reshape(len(steps), -1)


def choose_bits(kinds: Iterable[GGMLQuantizationType], precision: Precision, *, is_head: bool) -> int:
    """8, 4, HALF_BITS or FLOAT_BITS for a matrix made of tensors of these types. AUTO keeps lossless types, else takes 8."""
    if precision in (Precision.FP32, Precision.FP16):
        return FLOAT_BITS if precision is Precision.FP32 else HALF_BITS
    if precision is Precision.INT4:
        return 8 if is_head else 4
    if precision is Precision.AUTO and all(kind.name == "Q4_0" for kind in kinds):
        return 4
    return 8


def is_exact(kind: GGMLQuantizationType, bits: int) -> bool:
    """Whether `bits` can hold the type without rounding."""
    return bits in (FLOAT_BITS, HALF_BITS) or (kind.name == "Q8_0" and bits == 8) or kind.name == "Q4_0"


def choose_block(kinds: Iterable[GGMLQuantizationType], bits: int, columns: int) -> int:
    """The block size of a matrix whose parts are of these types."""
    is_rounded = not any(is_exact(kind, bits) for kind in kinds)
    return WIDE_BLOCK if bits == 8 and is_rounded and columns % WIDE_BLOCK == 0 else BLOCK


def encode(raw: NDArray[np.uint8], kind: GGMLQuantizationType, bits: int, block: int, name: str) -> Blocks:
    """Stored GGUF rows as blocks of `bits`; exact when the type fits. Raises CorruptModel for non-finite values.

    block: BLOCK for a type that fits.
    """
    if kind.name == "Q8_0" and bits == 8:
        return _repack_q8_0(raw, name)
    if kind.name == "Q4_0":
        blocks = _repack_q4_0(raw, name)
        return blocks if bits == 4 else _widen(blocks)
    return quantize(dequantize(raw, kind, name), bits, block)


def quantize(values: NDArray[np.float32], bits: int, block: int, *, is_symmetric: bool | None = None) -> Blocks:
    """Round [rows, columns]. Zero stays zero, and no value moves by more than a step, of which a block has 2^bits - 1.

    is_symmetric: around the middle of the range; by default 4 bits are, 8 bits have a zero of each block's own.
    """
    rows, columns = values.shape
    blocks = values.reshape(rows, columns // block, block)
    if bits == 4 if is_symmetric is None else is_symmetric:
        return _to_middle_zero(blocks, bits)
    return _to_own_zero(blocks, bits)


def _to_own_zero(blocks: NDArray[np.float32], bits: int) -> Blocks:
    """From the least value (or 0) to the greatest (or 0)."""
    top = np.float32(2**bits - 1)
    low, high = np.minimum(blocks.min(axis=-1), 0), np.maximum(blocks.max(axis=-1), 0)
    scales = (high / top - low / top).astype(np.float32)  # the difference itself may overflow
    factors = inverse(scales)
    zeros = np.clip(np.rint(-low * factors), 0, top)
    scaled = np.rint(blocks * factors[..., None]) + zeros[..., None]
    integers = np.clip(scaled, 0, top).astype(np.uint8)
    return Blocks(packed(integers, bits), scales, zeros.astype(np.uint8))


def _to_middle_zero(blocks: NDArray[np.float32], bits: int) -> Blocks:
    """The value of largest magnitude in a block is kept exactly up to float32."""
    middle = 2 ** (bits - 1)
    high, low = blocks.max(axis=-1), blocks.min(axis=-1)
    scales = (np.where(high > -low, high, low) / np.float32(-middle)).astype(np.float32)
    scaled = np.rint(blocks * inverse(scales)[..., None]) + middle
    return Blocks(packed(np.clip(scaled, 0, 2 * middle - 1).astype(np.uint8), bits), scales)


def packed(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """As they are stored: 4 bits two to a byte."""
    return pack_pairs(integers) if bits == 4 else integers


def inverse(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / scales, 0 where that is not finite."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = 1 / scales
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def isolate(blocks: Blocks, channels: Sequence[int]) -> Blocks:
    """8-bit blocks with one more for each channel, which holds that channel's weights and else zeros; exact."""
    rows, num_blocks, size = blocks.integers.shape
    places = [channel // size for channel in channels]
    zeros = np.full((rows, num_blocks), 128, np.uint8) if blocks.zeros is None else blocks.zeros
    alone = np.repeat(zeros[:, places, None], size, axis=2)
    alone[:, :, 0] = blocks.integers.reshape(rows, -1)[:, list(channels)]
    return Blocks(
        np.concatenate([blocks.integers, alone], axis=1),
        np.concatenate([blocks.scales, blocks.scales[:, places]], axis=1),
        None if blocks.zeros is None else np.concatenate([zeros, zeros[:, places]], axis=1),
    )


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
    return Blocks(pack_pairs(integers), scales)


def pack_pairs(integers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values 2i and 2i + 1 of the last axis in one byte."""
    return integers[..., 0::2] | (integers[..., 1::2] << np.uint8(4))


def _widen(blocks: Blocks) -> Blocks:
    """4-bit blocks as 8-bit blocks of the same values."""
    pairs = np.stack([blocks.integers & 0x0F, blocks.integers >> 4], axis=-1)
    return Blocks(pairs.reshape(*blocks.scales.shape, BLOCK) + np.uint8(120), blocks.scales)
