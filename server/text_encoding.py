"""Why bytes of a request or of slmops.toml are not UTF-8 text, as a message says it. Knows no formats of text."""

from __future__ import annotations

from model_registry.text_encoding import BOM, binary_format_of, wide_encoding_of

_GZIP = "it is compressed with gzip, and nothing says so: decompress it, or send the header 'Content-Encoding: gzip'"


def without_bom(data: bytes) -> bytes:
    """The bytes behind a UTF-8 byte order mark, which many editors write; all of them where there is none."""
    return data.removeprefix(BOM)


def why_not_utf8(data: bytes) -> str | None:
    """What the bytes are in place of UTF-8 text, and what to do about it; None when they are UTF-8."""
    if (encoding := wide_encoding_of(data)) is not None:
        return f"it is {encoding[:-2]}: save or send it as UTF-8"
    if (binary := binary_format_of(data)) is not None:
        return _GZIP if binary == "gzip" else f"it is {binary}: unpack it first"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 (byte {error.start}): save or send it as UTF-8"
    return None
