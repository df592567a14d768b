"""Lines of a file of training data as bytes: the byte order mark taken off, each line bounded; what is no UTF-8 text, named.

A whole file in another encoding or compressed is one problem, not one per line. Halves of surrogate pairs are named by their place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from model_registry.text_files import BOM, binary_format_of, wide_encoding_of

MAX_LINE_BYTES = 8 << 20  # of an example; some two million tokens
_PIECE_BYTES = 1 << 20
_SNIFFED_BYTES = 4096
_UNPACKING = {
    "gzip": "Unpack it first: gunzip FILE",
    "a ZIP archive": "Unpack it first: unzip FILE",
    "Zstandard": "Unpack it first: unzstd FILE",
    "xz": "Unpack it first: unxz FILE",
    "bzip2": "Unpack it first: bunzip2 FILE",
    "a 7-Zip archive": "Unpack it first: 7z x FILE",
    "Parquet": "Write its rows as JSON, one object in a line",
}
_HALF = re.compile("[\ud800-\udfff]")


def what_it_looks_like(beginning: bytes) -> tuple[str, str, str] | None:
    """(what the file is, the remedy, a code for programs) of one that is not UTF-8 text; None for one that may be. Pure."""
    if (binary := binary_format_of(beginning)) is not None:
        return f"is compressed or packed ({binary})", _UNPACKING[binary], "compressed"
    encoding = wide_encoding_of(beginning)
    return _other_encoding(encoding) if encoding else None


def of_broken_utf8(line: bytes) -> tuple[str, str, str]:
    """Like `what_it_looks_like`, for a line that cannot be decoded. Bytes 80 to 9F are letters in Windows-1252 alone."""
    is_windows = any(0x80 <= byte <= 0x9F for byte in line)
    return _other_encoding("WINDOWS-1252" if is_windows else "ISO-8859-1 (Latin-1) or WINDOWS-1252")


def lines_of(file: BinaryIO) -> Iterator[bytes | None]:
    """Every line with its end, the first without a byte order mark; None in place of one that is longer than MAX_LINE_BYTES.

    Takes no more memory than a line of that size.
    """
    is_first = True
    while raw := file.readline(MAX_LINE_BYTES + 1):
        if is_first:
            raw, is_first = raw.removeprefix(BOM), False
        if len(raw) <= MAX_LINE_BYTES or raw.endswith(b"\n"):
            yield raw
            continue
        while (piece := file.readline(_PIECE_BYTES)) and not piece.endswith(b"\n"):
            pass
        yield None


def beginning_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SNIFFED_BYTES)


def _other_encoding(name: str) -> tuple[str, str, str]:
    source = name.split(" ")[0]
    return f"is not UTF-8: it looks like {name}", f"Save it as UTF-8: iconv -f {source} -t UTF-8 FILE > NEW", "not_utf8"


def broken_text(line: str) -> str | None:
    """The dotted name of the first field, as `messages.0.content`; None when there is none, or the line is no JSON."""
    try:
        return _found(json.loads(line), "")
    except (ValueError, RecursionError):
        return None


def _found(value: Any, place: str) -> str | None:
    """A name that is broken itself is not shown."""
    if isinstance(value, str):
        return place if _HALF.search(value) else None
    if isinstance(value, dict):
        if any(_HALF.search(name) for name in value):
            return f"A field's name{f' in {place}' if place else ''}"
        inner = ((value[name], f"{place}.{name}" if place else name) for name in value)
    elif isinstance(value, list):
        inner = ((each, f"{place}.{index}") for index, each in enumerate(value))
    else:
        return None
    return next((found for each, where in inner if (found := _found(each, where)) is not None), None)
