"""Request bodies: their size as sent and decompressed, and their content coding.

gzip is read as it streams in, within the limit on bodies; other codings are refused. Knows no content.
"""

from __future__ import annotations

import asyncio
import zlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.body_errors import BodyTooLarge, InvalidBody, UnsupportedCoding
from server.http.errors import reply_to

_GZIP = zlib.MAX_WBITS | 16
_PIECE_BYTES = 1 << 18
_DAMAGED = "its gzip data is damaged or incomplete"


class Gunzip:
    """One gzip stream, decompressed piece by piece. Raises InvalidBody, and BodyTooLarge beyond max_bytes, however it is packed."""

    def __init__(self, max_bytes: int) -> None:
        self._stream = zlib.decompressobj(_GZIP)
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._waiting = b""

    def feed(self, data: bytes) -> None:
        """Data that `piece` has not come to yet is kept."""
        self._waiting += data

    def piece(self) -> bytes:
        """The next at most _PIECE_BYTES; empty when more data is needed."""
        if not self._waiting:
            return b""
        if self._stream.eof:
            raise InvalidBody("something follows the end of its gzip data")
        try:
            piece = self._stream.decompress(self._waiting, _PIECE_BYTES)
        except zlib.error:
            raise InvalidBody(_DAMAGED) from None
        self._waiting = self._stream.unconsumed_tail or self._stream.unused_data
        self._num_bytes += len(piece)
        if self._num_bytes > self._max_bytes:
            raise BodyTooLarge(self._max_bytes)
        return piece

    def finish(self) -> None:
        if not self._stream.eof:
            raise InvalidBody(_DAMAGED)


class GunzippedReceive:
    """An ASGI receive whose body is decompressed. Between pieces, the event loop serves others."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._gunzip = Gunzip(max_bytes)
        self._is_last = False
        self._is_done = False

    async def __call__(self) -> Message:
        while not self._is_done:
            await asyncio.sleep(0)
            piece = self._gunzip.piece()
            if piece:
                return {"type": "http.request", "body": piece, "more_body": True}
            if self._is_last:
                self._gunzip.finish()
                self._is_done = True
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._gunzip.feed(message.get("body", b""))
            self._is_last = not message.get("more_body", False)
        return await self._receive()


def coding_of(scope: Scope) -> str | None:
    """gzip, or None for a body as it is. Raises UnsupportedCoding."""
    named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"]
    codings = [coding for value in named for part in value.split(",") if (coding := part.strip().lower()) not in ("", "identity")]
    if not codings:
        return None
    if codings not in (["gzip"], ["x-gzip"]):
        raise UnsupportedCoding(", ".join(codings)[:100])
    return "gzip"


def decompressed(scope: Scope, receive: Receive, max_bytes: int) -> tuple[Scope, Receive]:
    """The request as it would have come uncompressed. Raises UnsupportedCoding."""
    if coding_of(scope) is None:
        return scope, receive
    headers = [(name, value) for name, value in scope["headers"] if name not in (b"content-encoding", b"content-length")]
    return {**scope, "headers": headers}, GunzippedReceive(receive, max_bytes)


UPLOADS = frozenset({"/v1/files"})


class BodyLimit:
    """An ASGI layer.

    A body whose declared length is too large is refused unread; one that grows too large raises BodyTooLarge in its reader.

    max_upload_bytes: of bodies to UPLOADS, which go to disk as they come.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._max_upload_bytes if scope["path"] in UPLOADS else self._max_body_bytes
        if _declared_bytes(scope) > limit:
            reply = reply_to(BodyTooLarge(limit))
            await reply.response(scope)(scope, receive, send)
            return
        try:
            scope, receive = decompressed(scope, _counted(receive, limit), limit)
        except UnsupportedCoding as error:
            await reply_to(error).response(scope)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _counted(receive: Receive, limit: int) -> Receive:
    num_bytes = 0

    async def receive_counted() -> Message:
        nonlocal num_bytes
        message = await receive()
        if message["type"] == "http.request":
            num_bytes += len(message.get("body", b""))
            if num_bytes > limit:
                raise BodyTooLarge(limit)
        return message

    return receive_counted


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:18])
    return 0
