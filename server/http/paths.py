"""Paths and methods as careful servers take them: a slash at the end means nothing, and HEAD is answered wherever GET is.

A pure ASGI layer outside all others, so that each of them sees the path and the method that a route has. Knows no routes.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class PathsAndMethods:
    """The layer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].rstrip("/") or "/"
        if path != scope["path"]:
            raw_path = scope.get("raw_path")
            scope = {**scope, "path": path, "raw_path": raw_path.rstrip(b"/") or b"/" if raw_path else raw_path}
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        head = _Head(receive, send)
        await self._app({**scope, "method": "GET"}, head.receive, head.send)


class _Head:
    """Answers with the head of a GET's answer. Then the client counts as disconnected, so that a stream does not go on unread."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._is_answered = False

    async def receive(self) -> Message:
        return {"type": "http.disconnect"} if self._is_answered else await self._receive()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._is_answered = True
