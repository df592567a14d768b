"""Recognises bytes that should be UTF-8 text and are something else, by how they begin. Pure; callers word the message."""

from __future__ import annotations

import codecs

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
