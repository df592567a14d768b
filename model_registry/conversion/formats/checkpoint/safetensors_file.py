"""The layout of a safetensors file, checked before any byte of a tensor is used. Knows no model.

Format: https://github.com/huggingface/safetensors#format. As there, tensors lie end to end and fill the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from model_registry.errors import CorruptModel
from model_registry.json_files import checked

MAX_HEADER_BYTES = 16 << 20  # the format allows 100 MB, which would take a gigabyte to read; the largest models need one
_VALUE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
_METADATA = "__metadata__"
_Count = Annotated[int, Meta(ge=0, le=1 << 40)]


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[_Count]
    data_offsets: tuple[_Count, _Count]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """dtype: in the format's words, e.g. `BF16`. data: its bytes, flat; the file stays mapped while they are in use."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


def open_safetensors(path: Path) -> Mapping[str, StoredTensor]:
    """By name. Raises CorruptModel."""
    if path.stat().st_size == 0:
        raise CorruptModel(f"{path.name} is empty. Fetch it again.")
    with path.open("rb") as opened:
        data = np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    size = int.from_bytes(data[:8].tobytes(), "little") if len(data) >= 8 else 0
    if not 0 < size <= len(data) - 8:
        raise CorruptModel(f"{path.name} is no safetensors file, or is cut. Fetch it again.")
    if size > MAX_HEADER_BYTES:
        raise CorruptModel(f"The header of {path.name} has {size / 1e6:.0f} MB, more than any model needs. Fetch it again.")
    entries = _entries(path, data[8 : 8 + size].tobytes())
    values = data[8 + size :]
    _check_places(path, entries, len(values))
    return {
        name: StoredTensor(entry.dtype, tuple(entry.shape), values[entry.data_offsets[0] : entry.data_offsets[1]])
        for name, entry in entries.items()
    }


def _entries(path: Path, header: bytes) -> dict[str, _Entry]:
    try:
        described = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        described.pop(_METADATA, None)
        plain = {name: msgspec.json.decode(raw) for name, raw in described.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptModel(f"The header of {path.name} is damaged ({error}). Fetch it again.") from error
    return {name: checked(entry, _Entry, f"The header of {path.name}, at {name!r},") for name, entry in plain.items()}


def _check_places(path: Path, entries: Mapping[str, _Entry], num_bytes: int) -> None:
    """Every tensor begins where the one before ends, and has the bytes that its shape calls for."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        value_bytes = _VALUE_BYTES.get(entry.dtype)
        expected = end - begin if value_bytes is None else prod(entry.shape) * value_bytes
        if begin != position or end < begin or end > num_bytes or end - begin != expected:
            raise CorruptModel(f"Tensor {name} of {path.name} does not lie where its header says. Fetch it again.")
        position = end
    if position != num_bytes:
        raise CorruptModel(f"{path.name} has {num_bytes - position} bytes that no tensor has. Fetch it again.")
