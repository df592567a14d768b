"""Requests that are open while something breaks, and how each of them ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

CHAT = "/v1/chat/completions"
ENDLESS = "[[endless]][[delay: 0.002]]"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ending:
    """status: of the response; last: its last event or its body; at: seconds of time.monotonic."""

    status: int
    last: Any
    at: float

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.last["error"]
        return error


def chat_body(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


class OpenRequest:
    """A request that runs as a task. `started` is set at its first event, or at its end."""

    def __init__(self, client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
        self.started = asyncio.Event()
        self._client = client
        self._request = client.build_request("POST", path, json=body)
        self.ending = asyncio.create_task(self._follow())

    async def _follow(self) -> Ending:
        response = await self._client.send(self._request, stream=True)
        last: Any = None
        try:
            if not response.headers["content-type"].startswith("text/event-stream"):
                last = json.loads(await response.aread())
            async for line in response.aiter_lines() if last is None else _nothing():
                if line.startswith("data: "):
                    text = line.removeprefix("data: ")
                    last = text if text == "[DONE]" else json.loads(text)
                    self.started.set()
        finally:
            await response.aclose()
            self.started.set()
        return Ending(response.status_code, last, time.monotonic())


class HealthWatch:
    """Polls /health until stopped. slowest_s: the longest time of an answer; statuses: all that arrived."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.statuses: set[int] = set()
        self.slowest_s = 0.0
        self._client = client
        self._stopping = False
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        self._stopping = True
        await self._task

    async def _watch(self) -> None:
        while not self._stopping:
            begun = time.monotonic()
            self.statuses.add((await self._client.get("/health")).status_code)
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)


def with_client(url: str, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, T]]) -> T:
    """Runs `work` with a client whose connections are not limited in number."""

    async def run() -> T:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, limits=limits) as client:
            return await work(client)

    return asyncio.run(run())


async def all_started(requests: list[OpenRequest]) -> None:
    for request in requests:
        await asyncio.wait_for(request.started.wait(), 30)


async def _nothing() -> Any:
    return
    yield
