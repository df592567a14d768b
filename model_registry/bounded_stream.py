"""A file's content, decompressed as it is read, and never more of it than was allowed. Knows no format but the compressions."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from model_registry.errors import CorruptModel

MAX_READ_BYTES = 16 << 20  # at once: no header is so long, and contents are read in smaller pieces


@contextmanager
def decompressed(path: Path) -> Iterator[IO[bytes]]:
    """Opens a stream that decompresses by the first bytes: gzip, bzip2, xz, or none of them."""
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        with _reader(magic, raw) as stream:
            yield stream


def _reader(magic: bytes, raw: IO[bytes]) -> IO[bytes]:
    if magic.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if magic.startswith(b"BZh"):
        return bz2.open(raw)
    return lzma.open(raw) if magic.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")) else raw


class Bounded(io.RawIOBase):
    """A readable, seekable view of `stream`, up to `most` bytes from its start. Raises CorruptModel beyond, EOFError for damage."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream = stream
        self._most = most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Seeking forwards is cheap; seeking backwards restarts the decompression."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("from the start only")
        self._check(offset)
        try:
            return self._stream.seek(offset)
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise EOFError(str(error)) from error

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ_BYTES:
            raise CorruptModel("The archive holds a header of many megabytes. Do not trust this archive.")
        self._check(self._stream.tell() + size - MAX_READ_BYTES)
        try:
            return self._stream.read(size)
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise EOFError(str(error)) from error

    def _check(self, position: int) -> None:
        if position > self._most:
            raise CorruptModel(f"The archive unpacks to more than {self._most / 1e6:.0f} MB, far over its size. Do not trust it.")
