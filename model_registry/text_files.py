"""Text and JSON that others wrote: encodings recognized, sizes bounded, values checked against a type.

A fault is one error, by file and field.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from model_registry.errors import CorruptModel

BOM = codecs.BOM_UTF8
_MARKS = (  # UTF-32's before UTF-16's, which they begin with
    (codecs.BOM_UTF32_LE, "UTF-32LE"),
    (codecs.BOM_UTF32_BE, "UTF-32BE"),
    (codecs.BOM_UTF16_LE, "UTF-16LE"),
    (codecs.BOM_UTF16_BE, "UTF-16BE"),
)
_ZEROS = (  # of the first four bytes: ASCII, with which every JSON and TOML begins, in wider units
    ((False, True, True, True), "UTF-32LE"),
    ((True, True, True, False), "UTF-32BE"),
    ((False, True, False, True), "UTF-16LE"),
    ((True, False, True, False), "UTF-16BE"),
)
_FORMATS = (
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"PAR1", "Parquet"),
)


def wide_encoding_of(data: bytes) -> str | None:
    """`UTF-16LE`, `UTF-32BE` and so on, with a byte order mark or without one; None for bytes of neither."""
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    zeros = tuple(byte == 0 for byte in data[:4])
    return marked or next((name for pattern, name in _ZEROS if zeros == pattern), None)


def binary_format_of(data: bytes) -> str | None:
    """The compression or container that the bytes are in; None when they are in none that is known here."""
    return next((name for magic, name in _FORMATS if data.startswith(magic)), None)


def without_bom(data: bytes) -> bytes:
    """The bytes behind a UTF-8 byte order mark, which many editors write; all of them where there is none."""
    return data.removeprefix(BOM)


def why_not_utf8(data: bytes) -> str | None:
    """What the bytes are in place of UTF-8 text, and what to do about it; None when they are UTF-8."""
    if (encoding := wide_encoding_of(data)) is not None:
        return f"it is {encoding[:-2]}: save or send it as UTF-8"
    if (binary := binary_format_of(data)) is not None:
        return f"it is {binary}: unpack it first"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 (byte {error.start}): save or send it as UTF-8"
    return None


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
