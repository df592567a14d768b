"""Weights as blocks of integers with one scale each, as MatMulNBits and GatherBlockQuantized read them; round to nearest. Pure.

value = scale * (integer - zero). 8 bits have a zero of each block's own, 4 bits 8, the middle of the range, by default; 4-bit
integers are stored two to a byte, low half first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """Blocks whose range reaches from the least value (or 0) to the greatest (or 0)."""
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
    """The integers as stored: 4-bit ones two to a byte."""
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


def pack_pairs(integers: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Values 2i and 2i + 1 of the last axis in one byte."""
    return integers[..., 0::2] | (integers[..., 1::2] << np.uint8(4))
