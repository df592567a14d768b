"""Opens a GGUF file and checks every count, length and offset before it is used, so that a damaged file raises and is never
followed.

Owns the byte layout (versions 2 and 3, little-endian). Knows nothing of what the values mean. The `gguf` library knows
the tensor types; its own reader is not used because it believes the file's counts.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.formats.gguf.metadata import Metadata, Value
from model_registry.errors import CorruptModel, UnsupportedModel

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

MAGIC = b"GGUF"
MAX_ARRAY = 1 << 24  # elements
MAX_TEXTS = 1 << 22  # of a list; the largest vocabularies have a million
MAX_VALUES, MAX_TENSORS = 1 << 16, 1 << 18
MAX_NAME_BYTES = 1 << 16
STRING, ARRAY, BOOL = 8, 9, 7
SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "<u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor's place in the file. shape: as NumPy has it, rows first; a row is `row_bytes` long and `columns` wide."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    row_bytes: int

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def num_rows(self) -> int:
        return prod(self.shape[:-1])


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A checked file. Tensors are read on demand from a memory map; keep the file unchanged while this is in use."""

    metadata: Metadata
    tensors: Mapping[str, StoredTensor]
    data: NDArray[np.uint8]

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The stored bytes, [rows, row_bytes], not copied."""
        info = self.tensors[name]
        return self.data[info.offset : info.offset + info.num_rows * info.row_bytes].reshape(info.num_rows, info.row_bytes)


def open_gguf(path: Path) -> GgufFile:
    """Raises CorruptModel for damage, UnsupportedModel for sound files of another kind."""
    if path.stat().st_size < 24:
        raise CorruptModel(f"{path.name} is too short to be a GGUF file. Fetch it again.")
    data: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
    cursor = _Cursor(data.data)
    if cursor.take(4) != MAGIC:
        raise CorruptModel(f"{path.name} does not begin with {MAGIC.decode()}: it is not a GGUF file, or it is damaged.")
    (version,) = cursor.unpack("<I")
    if version not in (2, 3):
        big_endian = version != 0 and version & 0xFFFF == 0
        what = "is big-endian" if big_endian else f"has GGUF version {version}"
        raise UnsupportedModel(f"{path.name} {what}; slmops reads little-endian versions 2 and 3. Convert the model again.")
    num_tensors, num_values = cursor.unpack("<QQ")
    cursor.can_hold(num_values, 13, "metadata values", MAX_VALUES)
    cursor.can_hold(num_tensors, 32, "tensors", MAX_TENSORS)
    values: dict[str, Value] = {}
    for _ in range(num_values):
        key = cursor.text(MAX_NAME_BYTES)
        if key in values:
            raise CorruptModel(f"The GGUF file has {key!r} twice. The file is damaged; fetch it again.")
        values[key] = cursor.value()
    metadata = Metadata(values)
    if metadata.integer("split.count", 1) > 1:
        raise UnsupportedModel(f"{path.name} is one part of a split model. Join the parts with `llama-gguf-split --merge` first.")
    return GgufFile(metadata, _tensors(cursor, num_tensors, metadata, len(data)), data)


def _tensors(cursor: _Cursor, count: int, metadata: Metadata, size: int) -> dict[str, StoredTensor]:
    found = [_tensor(cursor) for _ in range(count)]
    alignment = metadata.integer("general.alignment", 32, low=1, high=1 << 20)
    if alignment & (alignment - 1):
        raise CorruptModel(f"The GGUF file's general.alignment is {alignment}, not a power of two. Fetch it again.")
    start = cursor.position + -cursor.position % alignment
    tensors: dict[str, StoredTensor] = {}
    for info in found:
        placed = StoredTensor(info.name, info.type, info.shape, start + info.offset, info.row_bytes)
        if placed.offset + placed.num_rows * placed.row_bytes > size:
            raise CorruptModel(f"Tensor {info.name} reaches beyond the end of the GGUF file: it is truncated. Fetch it again.")
        if info.name in tensors:
            raise CorruptModel(f"The GGUF file has tensor {info.name!r} twice. The file is damaged; fetch it again.")
        tensors[info.name] = placed
    return tensors


def _tensor(cursor: _Cursor) -> StoredTensor:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name = cursor.text(MAX_NAME_BYTES)
    (num_dims,) = cursor.unpack("<I")
    if not 1 <= num_dims <= 4:
        raise CorruptModel(f"Tensor {name!r} has {num_dims} dimensions; 1 to 4 are possible. Fetch the file again.")
    dims = cursor.unpack(f"<{num_dims}Q")
    kind, offset = cursor.unpack("<IQ")
    try:
        type_ = GGMLQuantizationType(kind)
        block, block_bytes = GGML_QUANT_SIZES[type_]
    except (ValueError, KeyError):
        raise UnsupportedModel(
            f"Tensor {name!r} has type number {kind}, which is unknown here: the file is damaged, or newer than slmops."
        ) from None
    if min(dims) < 1 or dims[0] % block:
        raise CorruptModel(f"Tensor {name!r} has the impossible shape {list(dims)} for {type_.name}. Fetch the file again.")
    return StoredTensor(name, type_, tuple(reversed(dims)), offset, dims[0] // block * block_bytes)


class _Cursor:
    """A position in the file that refuses to move past its end."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.position = 0

    def take(self, num_bytes: int) -> bytes:
        end = self.position + num_bytes
        if end > len(self._data):
            raise CorruptModel("The GGUF file ends in the middle of its header: it is truncated. Fetch it again.")
        piece = self._data[self.position : end]
        self.position = end
        return bytes(piece)

    def unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def can_hold(self, count: int, item_bytes: int, what: str, most: int) -> None:
        if count > most or count * item_bytes > len(self._data) - self.position:
            raise CorruptModel(f"The GGUF file announces {count} {what}, more than it can hold. Fetch it again.")

    def text(self, limit: int = 1 << 26) -> str:
        (length,) = self.unpack("<Q")
        if length > limit:
            raise CorruptModel(f"The GGUF file announces a text of {length} bytes. The file is damaged; fetch it again.")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise CorruptModel("The GGUF file holds a text that is not UTF-8. The file is damaged; fetch it again.") from None

    def value(self) -> Value:
        (kind,) = self.unpack("<I")
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self._array()
        scalar = self._scalars(kind, 1)[0]
        if kind == BOOL:
            return bool(scalar)
        number: int | float = scalar.item()
        return number

    def _array(self) -> Value:
        kind, count = self.unpack("<IQ")
        if count > MAX_ARRAY:
            raise CorruptModel(f"The GGUF file announces a list of {count} values. The file is damaged; fetch it again.")
        if kind == STRING:
            self.can_hold(count, 8, "texts", MAX_TEXTS)
            return [self.text() for _ in range(count)]
        return self._scalars(kind, count)

    def _scalars(self, kind: int, count: int) -> NDArray[np.generic]:
        if kind not in SCALARS:
            raise CorruptModel(f"The GGUF file has a value of unknown kind {kind}. The file is damaged; fetch it again.")
        dtype = np.dtype(SCALARS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)
