"""Memory as settings write it: a share of this machine's, such as `80%`, or a size, such as `4GiB`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, ByteSize, TypeAdapter

from runtime.pool.memory import machine_memory_bytes

_SIZE: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)


def _share_or_size(value: object) -> object:
    text = str(value).strip()
    try:
        sound = 0 < float(text[:-1]) <= 100 if text.endswith("%") else _SIZE.validate_python(value) >= 1 << 20
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be a share of this machine's memory such as 80%, or a size such as 4GiB (at least 1MiB)")
    return text


MemoryShare = Annotated[str, BeforeValidator(_share_or_size)]


def bytes_of(share: str) -> int:
    """share: a valid MemoryShare."""
    if share.endswith("%"):
        return int(machine_memory_bytes() * float(share[:-1]) / 100)
    return int(_SIZE.validate_python(share))
