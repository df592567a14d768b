"""JSON that others wrote: read within bounds, and checked against a type. A fault is one error, by file and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from model_registry.errors import CorruptModel

MAX_CONFIG_BYTES = 16 << 20
MAX_TOKENIZER_BYTES = 128 << 20
T = TypeVar("T")


def read_object(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The object in the file, whatever its fields. Raises CorruptModel."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ValueError(f"it has {size / 1e6:.0f} MB, over {max_bytes / 1e6:.0f} MB")
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CorruptModel(f"{path.name} is not readable JSON ({error}). Fetch it again.") from error
    if not isinstance(value, dict):
        raise CorruptModel(f"{path.name} holds no JSON object. Fetch it again.")
    return value


def checked(value: Any, kind: type[T], file: str) -> T:
    """`value`, which `file` holds, as `kind`; fields that it does not name are left out. Raises CorruptModel by the field."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        what, _, place = str(error).partition(" - at `$")
        field = place.strip("`.") or "it"
        raise CorruptModel(f"{file} is damaged: {field} is not as it must be ({what}). Fetch the model again.") from error
