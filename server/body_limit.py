"""The limit on the size of a request's body, by its Content-Length, while it streams in, and decompressed. Knows no content."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.body_errors import BodyTooLarge, UnsupportedCoding
from server.content_coding import decompressed
from server.errors import reply_to

UPLOADS = frozenset({"/v1/files"})


class BodyLimit:
    """An ASGI layer. What says it is too large is refused unread; what grows too large raises BodyTooLarge in its reader.

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
