"""Frames on a byte stream: a 4-byte little-endian length, then that many bytes of msgpack. Knows no process and no pipe.

A frame longer than `MAX_FRAME_BYTES` is refused, so that a stray print on the stream cannot make the reader wait for gigabytes.
"""

from __future__ import annotations

import struct
import threading
from typing import BinaryIO, TypeVar

import msgspec

MAX_FRAME_BYTES = 256 << 20
_LENGTH = struct.Struct("<I")
HEADER_BYTES = _LENGTH.size

T = TypeVar("T")


class BrokenFrame(Exception):
    """The stream does not hold a frame: something other than a worker wrote to it."""


class Encoder:
    """Messages to frames. One per stream and thread: it keeps a buffer."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._buffer = bytearray()

    def frame(self, message: object) -> bytes:
        self._encoder.encode_into(message, self._buffer, HEADER_BYTES)
        size = len(self._buffer) - HEADER_BYTES
        if size > MAX_FRAME_BYTES:
            raise BrokenFrame(f"a message of {size} bytes exceeds the frame limit of {MAX_FRAME_BYTES}")
        _LENGTH.pack_into(self._buffer, 0, size)
        return bytes(self._buffer)


class FrameWriter:
    """Writes messages to a stream, whole, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._encoder = Encoder()
        self._writing = threading.Lock()

    def write(self, message: object) -> None:
        with self._writing:
            self._stream.write(self._encoder.frame(message))
            self._stream.flush()


def body_size(header: bytes) -> int:
    """Length of the body that follows this header. Raises BrokenFrame when it is beyond the limit."""
    (size,) = _LENGTH.unpack(header)
    if size > MAX_FRAME_BYTES:
        raise BrokenFrame(f"a frame of {size} bytes was announced; the limit is {MAX_FRAME_BYTES}")
    return int(size)


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame's body, blocking; None at the end of the stream, also inside a frame (its writer died)."""
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    size = body_size(header)
    body = stream.read(size)
    return body if len(body) == size else None
