"""Blocks of integers: lossless types stay exact, the others are rounded to the nearest step."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from gguf.quants import quantize as gguf_quantize
from numpy.typing import NDArray

from model_registry.errors import CorruptModel
from model_registry.importers.gguf.quantize import Blocks, choose_bits, encode, quantize
from model_registry.records import Precision

VALUES = np.random.default_rng(1).standard_normal((12, 128)).astype(np.float32)
Q8_0, Q4_0, Q4_1, F16 = (GGMLQuantizationType[name] for name in ("Q8_0", "Q4_0", "Q4_1", "F16"))


def decode(blocks: Blocks, bits: int) -> NDArray[np.float32]:
    """What MatMulNBits makes of the blocks, by its documentation."""
    integers = blocks.integers.astype(np.int32)
    if bits == 4:
        integers = np.stack([integers & 15, integers >> 4], axis=-1).reshape(*blocks.scales.shape, 32)
    values = (integers - (1 << (bits - 1))).astype(np.float32) * blocks.scales[:, :, None]
    return values.reshape(len(values), -1)


@pytest.mark.parametrize(("kind", "bits"), [(Q8_0, 8), (Q4_0, 4), (Q4_0, 8)])
def test_lossless_types_are_kept_exactly(kind: GGMLQuantizationType, bits: int) -> None:
    raw = gguf_quantize(VALUES, kind)
    decoded = decode(encode(raw, kind, bits, "t"), bits)
    np.testing.assert_array_equal(decoded, gguf_dequantize(raw, kind))


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_is_within_half_a_step_or_the_lost_end(bits: int) -> None:
    blocks = quantize(VALUES, bits)
    steps = np.repeat(np.abs(blocks.scales), 32, axis=1)
    error = np.abs(decode(blocks, bits) - VALUES)
    assert (error <= steps * 1.001).all()  # the end opposite to the largest value is clipped by up to one step
    assert np.median(error / steps) < 0.3
    peaks = np.abs(VALUES.reshape(-1, 32)).max(axis=1)
    decoded_peaks = np.abs(decode(blocks, bits).reshape(-1, 32)).max(axis=1)
    np.testing.assert_allclose(decoded_peaks, peaks, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-42, -3e38, 3e38])
@pytest.mark.parametrize("bits", [4, 8])
def test_extreme_blocks_are_finite(value: float, bits: int) -> None:
    decoded = decode(quantize(np.full((1, 32), value, np.float32), bits), bits)
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded, value, rtol=1e-5, atol=1e-40)


@pytest.mark.parametrize("kind", [Q8_0, Q4_0, Q4_1, F16])
def test_values_that_are_not_finite_are_refused(kind: GGMLQuantizationType) -> None:
    raw = gguf_quantize(VALUES, kind).view(np.uint8).copy()
    raw[3, :2] = np.frombuffer(np.float16("nan").tobytes(), np.uint8)
    with pytest.raises(CorruptModel, match=r"blk\.3 holds values that are not finite"):
        encode(raw, kind, 8, "blk.3")


@pytest.mark.parametrize(
    ("kinds", "precision", "is_head", "bits"),
    [
        ([Q4_0, Q4_0], Precision.AUTO, False, 4),
        ([Q4_0, Q8_0], Precision.AUTO, False, 8),
        ([Q4_1], Precision.AUTO, False, 8),
        ([Q8_0], Precision.INT4, False, 4),
        ([Q4_0], Precision.INT4, True, 8),
        ([Q4_0], Precision.INT8, False, 8),
        ([Q8_0], Precision.FP32, True, 32),
    ],
)
def test_choice_of_bits(kinds: list[GGMLQuantizationType], precision: Precision, is_head: bool, bits: int) -> None:
    assert choose_bits(kinds, precision, is_head=is_head) == bits
