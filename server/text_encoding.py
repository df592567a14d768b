"""What bytes that should be UTF-8 text are instead, so that a message can name it. Knows no formats of text."""

from __future__ import annotations

BOM = b"\xef\xbb\xbf"
_UTF16 = "it is UTF-16: save or send it as UTF-8"
_UTF32 = "it is UTF-32: save or send it as UTF-8"
_MARKS = (  # the longer before those they begin with
    (b"\xff\xfe\x00\x00", _UTF32),
    (b"\x00\x00\xfe\xff", _UTF32),
    (b"\xff\xfe", _UTF16),
    (b"\xfe\xff", _UTF16),
    (b"\x1f\x8b", "it is compressed with gzip, and nothing says so: decompress it, or send the header 'Content-Encoding: gzip'"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with Zstandard: decompress it, or use gzip with the header 'Content-Encoding: gzip'"),
    (b"PK\x03\x04", "it is a ZIP archive: unpack it"),
)


def without_bom(data: bytes) -> bytes:
    """The bytes behind a UTF-8 byte order mark, which many editors write; all of them where there is none."""
    return data.removeprefix(BOM)


def why_not_utf8(data: bytes) -> str | None:
    """What the bytes are in place of UTF-8 text, and what to do about it; None when they are UTF-8."""
    marked = next((why for mark, why in _MARKS if data.startswith(mark)), None)
    if marked is not None:
        return marked
    if b"\0" in data[:4]:  # ASCII, as every JSON and TOML begins with it, in wider units
        return _UTF32 if data[:4].count(b"\0") == 3 else _UTF16 if data[:4].count(b"\0") in (1, 2) and len(data) > 1 else None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 (byte {error.start}): save or send it as UTF-8"
    return None
