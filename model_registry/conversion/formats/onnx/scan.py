"""How many fields an ONNX file has, counted in its bytes before protobuf makes objects of them: an empty node takes two bytes on
disk and 150 in memory. Knows of ONNX only its message types.

Wire format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from model_registry.errors import CorruptModel

Descriptor = Any  # protobuf's, which comes without types
MAX_FIELDS = 2_000_000  # the largest decoders have some 100,000
MAX_BYTES = (1 << 31) - 1  # protobuf's own limit
_MAX_DEPTH = 90  # protobuf refuses from 100 on
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Damaged(Exception):
    """The bytes are not protobuf."""


def check_size(model: Path) -> None:
    """Raises CorruptModel: not protobuf, too large, or of more fields than any model has."""
    import onnx

    size = model.stat().st_size
    if size > MAX_BYTES:
        raise CorruptModel(f"{model.name} has {size / 1e9:.1f} GB, and an ONNX file has at most 2. Fetch it again.")
    damaged = f"{model.name} is not a whole ONNX model: it was cut off or damaged. Fetch it again."
    if size == 0:
        raise CorruptModel(damaged)
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            count = _count(data, onnx.ModelProto.DESCRIPTOR)
        except (_Damaged, IndexError) as error:
            raise CorruptModel(damaged) from error
    if count > MAX_FIELDS:
        raise CorruptModel(f"{model.name} has more than {MAX_FIELDS} nodes and fields. No model needs them: do not trust this one.")


def _count(data: mmap.mmap, kind: Descriptor) -> int:
    """Fields of the message and of all messages in it; it ends early above MAX_FIELDS."""
    messages = _MessageTypes()
    pending = [(0, len(data), kind, 0)]
    count = 0
    while pending and count <= MAX_FIELDS:
        at, end, kind, depth = pending.pop()
        inner = messages.of(kind)
        while at < end and count <= MAX_FIELDS:
            count += 1
            key, at = _varint(data, at)
            wire = key & 7
            if wire == _BYTES:
                length, at = _varint(data, at)
                if length > end - at:
                    raise _Damaged
                if length and (below := inner.get(key >> 3)) is not None:
                    if depth == _MAX_DEPTH:
                        raise _Damaged
                    pending.append((at, at + length, below, depth + 1))
                at += length
            elif wire == _VARINT:
                _, at = _varint(data, at)
            elif wire in (_FIXED32, _FIXED64):
                at += 4 if wire == _FIXED32 else 8
            else:
                raise _Damaged
            if at > end:
                raise _Damaged
    return count


class _MessageTypes:
    """The types of a message's fields that are messages themselves, by field number."""

    def __init__(self) -> None:
        self._known: dict[str, dict[int, Descriptor]] = {}

    def of(self, kind: Descriptor) -> dict[int, Descriptor]:
        found = self._known.get(kind.full_name)
        if found is None:
            found = {field.number: field.message_type for field in kind.fields if field.message_type is not None}
            self._known[kind.full_name] = found
        return found


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """(the number, where it ends). Raises IndexError at the end of the file."""
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    value, shift = byte & 127, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at + 1
        shift += 7
        if shift > 63:
            raise _Damaged
