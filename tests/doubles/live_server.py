"""A real server on a free port, in a thread of the test, with real worker processes; and how tests talk to an app without one."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, Self

import httpx
from fastapi import FastAPI

from server.app import create_app
from server.daemon import Daemon, open_socket
from server.dialects.openai.wire.messages import Parts
from server.settings.daemon import Settings

START_S = 30


class _AnnouncedDaemon(Daemon):
    """Reports when it listens, and on which event loop."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.announced = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.announced.set()


class LiveServer:
    """`with LiveServer(settings) as server:` serves until the end of the block, once the default model is loaded."""

    def __init__(self, settings: Settings, app: FastAPI | None = None) -> None:
        self._listener = open_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.app = app or create_app(settings)
        self.parts: Parts = self.app.state.parts
        self._daemon = _AnnouncedDaemon(self.app, settings, self.parts.drain)
        self._thread = threading.Thread(target=self._daemon.run, args=([self._listener],), name="live-server")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._daemon.announced.wait(START_S), "the server did not start"
        self.call(self.parts.readiness.warm_up())
        return self

    def __exit__(self, *exc: object) -> None:
        self._daemon.should_exit = True
        self._thread.join(START_S)
        assert not self._thread.is_alive(), "the server did not end"

    def call(self, work: Coroutine[Any, Any, Any], timeout_s: float = START_S) -> Any:
        """Runs a coroutine on the server's own event loop."""
        assert self._daemon.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._daemon.loop).result(timeout_s)

    def wait_idle(self) -> None:
        """Until no request is open."""
        assert self.call(self.parts.lifecycle.wait_idle(10)), "a request is still open"


def call_app(app: FastAPI, method: str, path: str, **request: Any) -> httpx.Response:
    """One request to an app that no server serves: nothing is loaded in it."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def events_of(response: httpx.Response) -> Iterator[Any]:
    """The events of a stream as they come: parsed JSON, and the text `[DONE]`."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            payload = line.removeprefix("data: ")
            yield payload if payload == "[DONE]" else json.loads(payload)
        else:
            assert line == "", f"not an event: {line!r}"


def chat_body(text: str, **fields: Any) -> dict[str, Any]:
    """A chat request with one message of the user."""
    return {"messages": [{"role": "user", "content": text}], **fields}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, which must have this status and exactly OpenAI's envelope."""
    assert response.status_code == status, response.text
    body = response.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error
