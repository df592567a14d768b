"""uvicorn's HTTP protocol with limits on what one connection may hold and for how long, and with answers as HTTP/1.0 has them.

Knows uvicorn's protocol; nothing of requests' meaning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MOST_OVERHEAD_BYTES = 1 << 16  # of headers, and of a body's chunk sizes and trailers
_CHUNK_OVERHEAD = 8  # bytes per byte of a body that comes in chunks of one
_MOST_HEADERS = 256
_LINGER_S = 30  # longest time in which what a client still sends is read and dropped after its answer
_PROGRESS_BYTES = 1 << 10  # less than this within the time is none: one byte now and then keeps no connection
_FULL = b'{"error":{"message":"The server has all the connections it takes; retry.","type":"server_error",'
_FULL += b'"param":null,"code":"too_many_connections"}}'
_log = logging.getLogger("slmops.http")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Seconds until a connection is closed: header_s, before the headers of a request are complete, counted from the connection
    or from their first byte; body_s, without progress of a body that the server waits for; write_s, without progress of an
    answer that the client does not read. max_connections: beyond it, the connection that has idled longest is closed, and if
    none idles, the new one.
    """

    header_s: float
    body_s: float
    write_s: float
    max_connections: int


class HttpProtocol(HttpToolsProtocol):
    """One connection. `limits`, and `idle`, the connections of the server without a request, longest first, are of its class."""

    limits: ConnectionLimits
    idle: dict[HttpProtocol, None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app: Any = _AsItsVersionHasIt(self.app)
        self._is_header_open = False
        self._is_body_open = False
        self._is_lingering = False  # the answer has ended, and with it the connection, once the client has sent its request
        self._has_many_headers = False
        self._num_overhead_bytes = 0  # that are no body, since the request's headers began or its body did
        self._num_received = 0
        self._num_seen = 0  # of those received, at the last look
        self._num_unsent = 0  # at the last look
        self._has_drained = False  # since the last look
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.idle[self] = None
        self._watch_header()
        if len(self.connections) > self.limits.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle.pop(self, None)
        self._stop_read_timer()
        self._stop_write_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._num_received += len(data)
        self._num_overhead_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._num_overhead_bytes > _MOST_OVERHEAD_BYTES:
            self._refuse_headers()
        elif self._is_body_open:
            self._watch_body()
        elif self._is_header_open or self in self.idle:
            self._watch_header()

    def on_message_begin(self) -> None:
        self._is_header_open = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_body_open:
            return  # a trailer: it is never read, and it must not pass for a header
        self._has_many_headers = len(self.headers) >= _MOST_HEADERS
        if self._has_many_headers:
            raise ValueError(f"more than {_MOST_HEADERS} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_lingering:
            return  # another request behind the one that was the last
        self._is_header_open, self._is_body_open = False, True
        self.idle.pop(self, None)
        self._num_overhead_bytes = 0
        self._stop_read_timer()
        super().on_headers_complete()
        self.cycle.transport = _TransportOfCycle(self.transport, self._end_connection)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._num_overhead_bytes -= len(body) * (1 + _CHUNK_OVERHEAD)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_body_open = False
        self._num_overhead_bytes = 0
        self._stop_read_timer()
        super().on_message_complete()
        if self._is_lingering:
            self.transport.close()

    def on_response_complete(self) -> None:
        had_more = bool(self.pipeline)
        super().on_response_complete()
        if not had_more and not self.transport.is_closing():
            self.idle[self] = None
        if self.transport.get_write_buffer_size():
            self._watch_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._has_drained = True

    def send_400_response(self, msg: str) -> None:
        if self._is_lingering:
            self.transport.abort()
        elif self._has_many_headers:
            self._refuse_headers()
        else:
            super().send_400_response(msg)

    def _end_connection(self) -> None:
        """After its last answer. If the client is still sending, a close would have the system reset the connection, and the client
        or the proxy before it would lose the answer; so only our side ends, and the rest is read and dropped (RFC 9112, 9.6).
        """
        if not (self._is_body_open and self.cycle.response_complete and self.transport.can_write_eof()):
            self.transport.close()
        elif not self._is_lingering:
            self._is_lingering = True
            self.transport.write_eof()
            self._linger_timer = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _make_room(self) -> None:
        longest = next(iter(self.idle))
        if longest is not self:
            del self.idle[longest]
            longest.transport.abort()
            return
        head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(_FULL) + _FULL)
        self.transport.close()
        _log.warning("connection refused: too many", extra={"fields": {"max_connections": self.limits.max_connections}})

    def _refuse_headers(self) -> None:
        if self._is_lingering:
            self.transport.abort()
            return
        self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

    def _watch_header(self) -> None:
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(self.limits.header_s, self._header_is_late)

    def _header_is_late(self) -> None:
        self._read_timer = None
        if self.flow.read_paused or self.pipeline:  # what is missing may be in our own buffers
            self._watch_header()
        else:
            self._close_late("header")

    def _watch_body(self) -> None:
        if self._read_timer is None:
            self._num_seen = self._num_received
            self._read_timer = self.loop.call_later(self.limits.body_s, self._look_at_body)

    def _look_at_body(self) -> None:
        self._read_timer = None
        if self.flow.read_paused or self._num_received - self._num_seen >= _PROGRESS_BYTES:
            self._watch_body()
        else:
            self._close_late("body")

    def _close_late(self, what: str) -> None:
        """An answer in progress whose client still sends a body is cut too: uvicorn reports to the app that the client is gone."""
        if not self.transport.is_closing():
            _log.debug("connection closed: a request came too slowly", extra={"fields": {"waited_for": what}})
            self.transport.abort()

    def _watch_writing(self) -> None:
        if self._write_timer is None:
            self._num_unsent, self._has_drained = self.transport.get_write_buffer_size(), False
            self._write_timer = self.loop.call_later(self.limits.write_s, self._look_at_writing)

    def _look_at_writing(self) -> None:
        self._write_timer = None
        num_unsent = self.transport.get_write_buffer_size()
        if num_unsent == 0:
            return
        if self._has_drained or num_unsent < self._num_unsent:
            self._watch_writing()
        else:
            _log.debug("connection closed: an answer was not read")
            self.transport.abort()

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class _TransportOfCycle:
    """A connection's transport as uvicorn's cycle of one request uses it; what its `close` does, the connection decides."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


def protocol_with(limits: ConnectionLimits) -> type[HttpProtocol]:
    """The class that uvicorn makes one of per connection."""
    return type("LimitedHttpProtocol", (HttpProtocol,), {"limits": limits, "idle": {}})


class _AsItsVersionHasIt:
    """HTTP/1.0 knows no chunks: there, an answer whose length is not known ends with the connection (RFC 9112, 6.3)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        if scope.get("http_version") != "1.0" or not isinstance(cycle, RequestResponseCycle):
            await self._app(scope, receive, send)
            return
        is_unknown = False

        async def send_unchunked(message: Message) -> None:
            nonlocal is_unknown
            if message["type"] == "http.response.start":
                is_unknown = all(name.lower() != b"content-length" for name, _ in message.get("headers", ()))
                cycle.chunked_encoding = False if is_unknown else None
            elif is_unknown:
                cycle.expected_content_length = len(message.get("body", b""))  # as if each part were the whole
            await send(message)

        await self._app(scope, receive, send_unchunked)
