"""Blocks of integers: lossless types stay exact, the others are rounded to the nearest step."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize as gguf_dequantize
from gguf.quants import quantize as gguf_quantize
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import FAMILIES, Architecture, Rope
from model_registry.conversion.decoder.matrix import Matrix, Part
from model_registry.conversion.formats.gguf.importer import GgufSource, tensor_info
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.reader import GgufFile, StoredTensor
from model_registry.conversion.quantizers.recipe import choose_bits, choose_block
from model_registry.conversion.quantizers.rtn import Blocks, isolate, quantize
from model_registry.errors import CorruptModel
from model_registry.records import Precision

VALUES = np.random.default_rng(1).standard_normal((12, 128)).astype(np.float32)
EIGHT, FOUR, NONE = 8, 4, None  # exact bits of Q8_0, Q4_0, and of what must be rounded
ARCHITECTURE = Architecture("llama", FAMILIES["llama"], 1, 128, 128, 4, 2, 32, 1e-5, 64, 1.0, Rope(10000.0))
Q8_0, Q4_0, Q4_1, F16 = (GGMLQuantizationType[name] for name in ("Q8_0", "Q4_0", "Q4_1", "F16"))


def encode(raw: NDArray[np.uint8], kind: GGMLQuantizationType, bits: int, name: str = "t") -> Blocks:
    """The stored rows as a graph has them, in blocks of 32."""
    place = StoredTensor(f"{name}.weight", kind, VALUES.shape, 0, raw.shape[-1])
    file = GgufFile(Metadata({}), {place.name: place}, raw.reshape(-1))
    source = GgufSource(file, ARCHITECTURE, {place.name: tensor_info(place)})
    (blocks,) = Matrix(source, (Part(name),), bits, 32, *VALUES.shape).blocks()
    return blocks


def decode(blocks: Blocks, bits: int) -> NDArray[np.float32]:
    """What MatMulNBits makes of the blocks, by its documentation."""
    integers = blocks.integers.astype(np.int32)
    if bits == 4:
        integers = np.stack([integers & 15, integers >> 4], axis=-1).reshape(*blocks.scales.shape, 32)
    zeros = 1 << (bits - 1) if blocks.zeros is None else blocks.zeros.astype(np.int32)[:, :, None]
    values = (integers - zeros).astype(np.float32) * blocks.scales[:, :, None]
    return values.reshape(len(values), -1)


@pytest.mark.parametrize(("kind", "bits"), [(Q8_0, 8), (Q4_0, 4), (Q4_0, 8)])
def test_lossless_types_are_kept_exactly(kind: GGMLQuantizationType, bits: int) -> None:
    raw = gguf_quantize(VALUES, kind)
    decoded = decode(encode(raw, kind, bits), bits)
    np.testing.assert_array_equal(decoded, gguf_dequantize(raw, kind))


@pytest.mark.parametrize(("bits", "block"), [(4, 32), (8, 32), (8, 64)])
def test_rounding_is_within_half_a_step_or_the_lost_end(bits: int, block: int) -> None:
    blocks = quantize(VALUES, bits, block)
    steps = np.repeat(np.abs(blocks.scales), block, axis=1)
    error = np.abs(decode(blocks, bits) - VALUES)
    assert (error <= steps * 1.001).all()  # an end of the range is clipped by up to one step
    assert np.median(error / steps) < 0.3


def test_four_bits_keep_the_largest_value() -> None:
    peaks = np.abs(VALUES.reshape(-1, 32)).max(axis=1)
    decoded = np.abs(decode(quantize(VALUES, 4, 32), 4).reshape(-1, 32)).max(axis=1)
    np.testing.assert_allclose(decoded, peaks, rtol=1e-6)


@pytest.mark.parametrize("offset", [-3, 3])
def test_eight_bits_use_their_whole_range_around_zero(offset: float) -> None:
    """Lopsided values, as Q4_1 and Q4_K have them, are stepped by their own range, and zero stays zero."""
    values = VALUES + np.float32(offset)
    values[:, 0] = 0
    blocks = quantize(values, 8, 64)
    ranges = np.maximum(values.reshape(12, 2, 64).max(-1), 0) - np.minimum(values.reshape(12, 2, 64).min(-1), 0)
    np.testing.assert_allclose(blocks.scales, ranges / 255, rtol=1e-5)
    assert (decode(blocks, 8)[:, 0] == 0).all()


@pytest.mark.parametrize("kind", [Q8_0, Q4_1])
def test_isolated_channels_are_copied_exactly(kind: GGMLQuantizationType) -> None:
    blocks = encode(gguf_quantize(VALUES, kind), kind, 8)
    plain, wide = decode(blocks, 8), decode(isolate(blocks, (70, 3)), 8)
    assert wide.shape == (12, 128 + 64)
    np.testing.assert_array_equal(wide[:, :128], plain)
    np.testing.assert_array_equal(wide[:, [128, 160]], plain[:, [70, 3]])
    assert not np.delete(wide[:, 128:], [0, 32], axis=1).any()


@pytest.mark.parametrize("value", [0.0, 1e-42, -3e38, 3e38])
@pytest.mark.parametrize("bits", [4, 8])
def test_extreme_blocks_are_finite(value: float, bits: int) -> None:
    decoded = decode(quantize(np.full((1, 32), value, np.float32), bits, 32), bits)
    assert np.isfinite(decoded).all()
    np.testing.assert_allclose(decoded, value, rtol=1e-5, atol=1e-40)


@pytest.mark.parametrize("kind", [Q8_0, Q4_0, Q4_1, F16])
def test_values_that_are_not_finite_are_refused(kind: GGMLQuantizationType) -> None:
    raw = gguf_quantize(VALUES, kind).view(np.uint8).copy()
    raw[3, :2] = np.frombuffer(np.float16("nan").tobytes(), np.uint8)
    with pytest.raises(CorruptModel, match=r"blk\.3\.weight holds values that are not finite"):
        encode(raw, kind, 8, "blk.3")


@pytest.mark.parametrize(
    ("exact", "precision", "is_head", "bits"),
    [
        ([FOUR, FOUR], Precision.AUTO, False, 4),
        ([FOUR, EIGHT], Precision.AUTO, False, 8),
        ([NONE], Precision.AUTO, False, 8),
        ([EIGHT], Precision.INT4, False, 4),
        ([FOUR], Precision.INT4, True, 8),
        ([FOUR], Precision.INT8, False, 8),
        ([EIGHT], Precision.FP32, True, 32),
    ],
)
def test_choice_of_bits(exact: list[int | None], precision: Precision, is_head: bool, bits: int) -> None:
    assert choose_bits(exact, precision, is_head=is_head) == bits


@pytest.mark.parametrize(
    ("exact", "bits", "columns", "block"),
    [
        ([NONE, NONE], 8, 128, 64),
        ([NONE], 8, 96, 32),  # does not divide
        ([NONE, EIGHT], 8, 128, 32),  # one is kept exactly
        ([FOUR], 4, 128, 32),
        ([NONE], 4, 128, 32),
    ],
)
def test_choice_of_block(exact: list[int | None], bits: int, columns: int, block: int) -> None:
    assert choose_block(exact, bits, columns) == block
