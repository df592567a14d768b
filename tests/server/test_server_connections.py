"""What one connection may hold and for how long: timers of its protocol by a fake clock, and real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from server.http.protocol import ConnectionLimits, HttpProtocol, protocol_with
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer

LIMITS = ConnectionLimits(header_s=10, body_s=30, write_s=60, max_connections=3)
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


class _Timer:
    def __init__(self, at: float, act: Callable[[], None]) -> None:
        self.at, self.act, self.is_cancelled = at, act, False

    def cancel(self) -> None:
        self.is_cancelled = True


class _Task:
    def add_done_callback(self, _: Callable[..., None]) -> None: ...


class _Clock:
    """An event loop in which nothing happens but timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[_Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, act: Callable[[], None]) -> _Timer:
        self.timers.append(_Timer(self.now + delay, act))
        return self.timers[-1]

    def create_task(self, work: Coroutine[Any, Any, None], **_: Any) -> _Task:
        work.close()
        return _Task()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.is_cancelled:
                timer.act()


class _Transport:
    def __init__(self) -> None:
        self.written = b""
        self.num_unsent = 0
        self.is_over = False
        self.has_ended = False  # our side alone

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.is_over

    def write(self, data: bytes) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended = True

    def close(self) -> None:
        self.is_over = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return self.num_unsent


async def _app(scope: Any, receive: Any, send: Any) -> None: ...


class _Connections:
    """Connections to one server."""

    def __init__(self) -> None:
        self.clock = _Clock()
        self._state = ServerState()
        self._config = uvicorn.Config(_app, log_config=None, ws="none", interface="asgi3")
        self._config.load()
        self._kind: Any = protocol_with(LIMITS)

    def open(self) -> tuple[HttpProtocol, _Transport]:
        protocol = self._kind(config=self._config, server_state=self._state, app_state={}, _loop=self.clock)
        transport: Any = _Transport()
        protocol.connection_made(transport)
        return protocol, transport


@pytest.fixture
def connections() -> _Connections:
    return _Connections()


def test_a_connection_that_says_nothing_is_closed(connections: _Connections) -> None:
    _, transport = connections.open()
    connections.clock.advance(9)
    assert not transport.is_over
    connections.clock.advance(1)
    assert transport.is_over


def test_half_a_header_is_closed_though_bytes_keep_coming(connections: _Connections) -> None:
    protocol, transport = connections.open()
    for byte in HEAD[:9]:
        protocol.data_received(bytes([byte]))
        connections.clock.advance(1)
    assert not transport.is_over
    connections.clock.advance(1)
    assert transport.is_over


def test_half_a_body_is_closed_when_it_makes_no_progress(connections: _Connections) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Content-Length: 100000\r\n\r\n")
    connections.clock.advance(29)
    protocol.data_received(b"x" * 1024)
    connections.clock.advance(1)
    connections.clock.advance(29)
    assert not transport.is_over  # a slow upload that makes progress
    protocol.data_received(b"x")  # and a byte that makes none
    connections.clock.advance(1)
    assert transport.is_over


def test_a_body_that_the_server_does_not_read_is_not_late(connections: _Connections) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000)
    assert protocol.flow.read_paused
    connections.clock.advance(1000)
    assert not transport.is_over


def test_a_whole_request_has_no_timer(connections: _Connections) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Content-Length: 2\r\n\r\nhi")
    connections.clock.advance(10_000)
    assert not transport.is_over


@pytest.mark.parametrize("is_progress", [True, False])
def test_an_answer_that_is_not_read_ends_the_connection(connections: _Connections, is_progress: bool) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Content-Length: 0\r\n\r\n")
    transport.num_unsent = 100_000
    protocol.pause_writing()
    connections.clock.advance(59)
    if is_progress:
        transport.num_unsent = 99_000
    connections.clock.advance(1)
    assert transport.is_over is not is_progress


@pytest.mark.parametrize(
    "more",
    [
        b"X: " + b"y" * 70_000,
        b"".join(b"X%d: y\r\n" % number for number in range(300)) + b"\r\n",
    ],
    ids=["long", "many"],
)
def test_too_much_of_a_header_is_refused(connections: _Connections, more: bytes) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + more)
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert transport.is_over


def test_endless_trailers_are_refused(connections: _Connections) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n")
    for _ in range(100):
        if not transport.is_over:
            protocol.data_received(b"X: " + b"y" * 1000 + b"\r\n")
    assert transport.is_over


def test_a_body_in_chunks_of_one_byte_passes(connections: _Connections) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(100):
        protocol.data_received(b"1\r\nx\r\n" * 1000)
        protocol.cycle.body.clear()
    assert not transport.is_over


def test_the_connection_that_idled_longest_makes_room(connections: _Connections) -> None:
    opened = []
    for _ in range(LIMITS.max_connections):
        opened.append(connections.open())
        connections.clock.advance(1)
    opened[0][0].data_received(HEAD + b"Content-Length: 5\r\n\r\n")
    _, newest = connections.open()
    assert [transport.is_over for _, transport in opened] == [False, True, False]
    assert not newest.is_over


def test_a_connection_too_many_is_refused_where_all_are_busy(connections: _Connections) -> None:
    busy = [connections.open() for _ in range(LIMITS.max_connections)]
    for protocol, _ in busy:
        protocol.data_received(HEAD + b"Content-Length: 5\r\n\r\n")
    _, newest = connections.open()
    assert newest.is_over
    head, _, body = newest.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert json.loads(body)["error"]["code"] == "too_many_connections"
    assert not any(transport.is_over for _, transport in busy)


def _answered(protocol: HttpProtocol) -> None:
    """As after an answer with `Connection: close`."""
    protocol.cycle.response_complete = True
    protocol.cycle.transport.close()


def test_a_refused_request_is_read_to_its_end_before_the_connection_is_closed(connections: _Connections) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Content-Length: 4000\r\n\r\n" + b"x" * 2000)
    _answered(protocol)
    assert transport.has_ended
    assert not transport.is_over
    protocol.data_received(b"x" * 2000 + HEAD + b"Content-Length: 0\r\n\r\n")
    assert transport.is_over


def test_a_refused_request_without_end_is_cut_off(connections: _Connections) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    _answered(protocol)
    for _ in range(29):
        protocol.data_received(b"800\r\n" + b"x" * 2048 + b"\r\n")
        connections.clock.advance(1)
    assert not transport.is_over
    connections.clock.advance(1)
    assert transport.is_over


def test_what_is_no_body_behind_a_refused_request_gets_no_second_answer(connections: _Connections) -> None:
    protocol, transport = connections.open()
    protocol.data_received(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    _answered(protocol)
    protocol.data_received(b"no size\r\n")
    assert transport.is_over
    assert transport.written == b""


def _exchange(server: LiveServer, request: bytes) -> bytes:
    """All that comes until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_http_1_0_gets_no_chunks(live: LiveServer) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    head, _, answer = _exchange(live, head + body).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert answer.startswith(b"data: {")
    assert answer.endswith(b"data: [DONE]\n\n")
    assert all(line.startswith(b"data: ") for line in answer.split(b"\n\n") if line)


def test_http_1_0_gets_lengths_that_are_known(live: LiveServer) -> None:
    head, _, answer = _exchange(live, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").partition(b"\r\n\r\n")
    assert f"content-length: {len(answer)}".encode() in head.lower()
    assert json.loads(answer) == {"status": "ok"}


def test_pipelined_requests_are_answered_in_order(live: LiveServer) -> None:
    paths = ("/health", "/version", "/v1/models")
    requested = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths]
    requested[-1] = requested[-1].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    answers = _exchange(live, b"".join(requested))
    found = [answers.index(mark) for mark in (b'"status"', b'"version"', b'"object":"list"')]
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert found == sorted(found)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files", "/nowhere"])
def test_an_answer_before_the_end_of_the_request_reaches_a_client_that_sends_it_all_first(live: LiveServer, path: str) -> None:
    body = b" " * int(live.parts.settings.max_body_bytes * 2)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = _exchange(live, head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b'"error"' in answer


def test_silent_connections_are_closed_by_a_real_server(tmp_path: Path) -> None:
    settings = Settings(engine="fake", home=tmp_path, port=0, header_timeout_s=0.05, body_timeout_s=0.05)
    with LiveServer(settings) as server:
        assert _exchange(server, b"") == b""
        assert _exchange(server, b"GET /health HTTP/1.1\r\nHos") == b""
        assert _exchange(server, b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{") == b""
        server.wait_idle()
        assert _exchange(server, b"GET /health HTTP/1.0\r\n\r\n").endswith(b'{"status":"ok"}')
