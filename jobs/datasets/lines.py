"""Lines of a file of training data as bytes: the byte order mark taken off, each line bounded; what is no UTF-8 text, named.

A whole file in another encoding or compressed is one problem, not one per line.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAX_LINE_BYTES = 8 << 20  # of an example; some two million tokens
_PIECE_BYTES = 1 << 20
_SNIFFED_BYTES = 4096
_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip", "gunzip FILE"),
    (b"PK\x03\x04", "a zip archive", "unzip FILE"),
    (b"\x28\xb5\x2f\xfd", "zstandard", "unzstd FILE"),
    (b"\xfd7zXZ\x00", "xz", "unxz FILE"),
    (b"BZh", "bzip2", "bunzip2 FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z x FILE"),
    (b"PAR1", "Parquet", "write its rows as JSON, one object in a line"),
)
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32LE"),
    (codecs.BOM_UTF32_BE, "UTF-32BE"),
    (codecs.BOM_UTF16_LE, "UTF-16LE"),
    (codecs.BOM_UTF16_BE, "UTF-16BE"),
)


def what_it_looks_like(beginning: bytes) -> tuple[str, str, str] | None:
    """(what the file is, the remedy, a code for programs) of one that is not UTF-8 text; None for one that may be. Pure."""
    for magic, name, remedy in _COMPRESSIONS:
        if beginning.startswith(magic):
            return f"is compressed or packed ({name})", f"Unpack it first: {remedy}", "compressed"
    encoding = next((name for mark, name in _MARKS if beginning.startswith(mark)), None) or _by_zeros(beginning)
    return _other_encoding(encoding) if encoding else None


def of_broken_utf8(line: bytes) -> tuple[str, str, str]:
    """As `what_it_looks_like`, of a line that cannot be decoded. Bytes 80 to 9F are letters in Windows-1252 alone."""
    is_windows = any(0x80 <= byte <= 0x9F for byte in line)
    return _other_encoding("WINDOWS-1252" if is_windows else "ISO-8859-1 (Latin-1) or WINDOWS-1252")


def lines_of(file: BinaryIO) -> Iterator[bytes | None]:
    """Every line with its end, the first without a byte order mark; None in place of one that is longer than MAX_LINE_BYTES.

    Takes no more memory than a line of that size.
    """
    is_first = True
    while raw := file.readline(MAX_LINE_BYTES + 1):
        if is_first:
            raw, is_first = raw.removeprefix(codecs.BOM_UTF8), False
        if len(raw) <= MAX_LINE_BYTES or raw.endswith(b"\n"):
            yield raw
            continue
        while (piece := file.readline(_PIECE_BYTES)) and not piece.endswith(b"\n"):
            pass
        yield None


def beginning_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SNIFFED_BYTES)


def _by_zeros(beginning: bytes) -> str | None:
    """UTF-16 without a mark: JSON begins with ASCII, every other byte of which is 0 there."""
    head = beginning[:64]
    if len(head) >= 4 and head[1] == 0 != head[0] and head[3] == 0 != head[2]:
        return "UTF-16LE"
    return "UTF-16BE" if len(head) >= 4 and head[0] == 0 != head[1] and head[2] == 0 != head[3] else None


def _other_encoding(name: str) -> tuple[str, str, str]:
    source = name.split(" ")[0]
    return f"is not UTF-8: it looks like {name}", f"Save it as UTF-8: iconv -f {source} -t UTF-8 FILE > NEW", "not_utf8"
