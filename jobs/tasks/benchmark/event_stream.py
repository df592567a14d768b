"""One streamed completion over a raw socket, timed: bytes are counted, not parsed, so the client costs little.

Owns the HTTP/1.1 exchange and the instants at which text arrived. Knows nothing of prompts, loads or statistics.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

_TEXT = re.compile(rb'"(?:(?:reasoning_)?content|text)": ?"[^"]')  # a delta, or a plain choice, that carries text
_USAGE_TAIL_BYTES = 8192  # the usage is in the last events of a stream


class StreamFailed(Exception):
    """The request got no complete answer; the message describes what arrived instead."""


@dataclass(frozen=True, slots=True)
class Answer:
    """ttft_s: from sending to the first text. gaps_s: between deltas with text. Token counts are the server's usage."""

    ttft_s: float
    gaps_s: tuple[float, ...]
    completion_tokens: int
    prompt_tokens: int
    cached_tokens: int

    @classmethod
    def timed(cls, sent: float, instants: Sequence[float], *, completion: int, prompt: int, cached: int = 0) -> Answer:
        """The timings of a request that was sent at `sent` and whose text arrived at `instants` (at least one), by the same
        clock.
        """
        gaps = tuple(later - earlier for earlier, later in pairwise(instants))
        return cls(instants[0] - sent, gaps, completion, prompt, cached)


class EventStream:
    """POSTs to `<url>/<path>`, one connection per request."""

    def __init__(self, url: str, api_key: str | None, path: str = "chat/completions") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a server's address; write it as http://HOST:PORT/v1")
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        authorization = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._head = (
            f"POST {parts.path.rstrip('/')}/{path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{authorization}"
            "Content-Type: application/json\r\nConnection: close\r\n"
        )

    async def complete(self, body: Mapping[str, Any]) -> Answer:
        """Raises StreamFailed when the server cannot be reached, refuses, fails, or ends the stream early."""
        payload = json.dumps(body).encode()
        started = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls or None)
        except OSError as error:
            raise StreamFailed(f"cannot connect to {self._host}:{self._port}: {error}") from error
        try:
            writer.write(f"{self._head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
            await writer.drain()
            return _answer(await _receive(reader), started)
        except OSError as error:
            raise StreamFailed(f"connection to {self._host}:{self._port} broke: {error}") from error
        finally:
            writer.close()


@dataclass(frozen=True, slots=True)
class _Received:
    """instants: when each delta with text arrived. tail: the last bytes of the response."""

    instants: list[float]
    tail: bytes


async def _receive(reader: asyncio.StreamReader) -> _Received:
    instants: list[float] = []
    pending = tail = b""
    status: int | None = None
    while chunk := await reader.read(65536):
        now = time.perf_counter()
        tail = (tail + chunk)[-_USAGE_TAIL_BYTES:]
        lines, newline, rest = (pending + chunk).rpartition(b"\n")
        pending = rest
        if newline and status is None:
            status = int(lines.split(b" ", 2)[1])
        instants.extend([now] * len(_TEXT.findall(lines)))
    if status != 200:
        raise StreamFailed(f"status {status}: {_excerpt(tail)}" if status else "the server closed the connection")
    return _Received(instants, tail)


def _answer(received: _Received, started: float) -> Answer:
    instants, tail = received.instants, received.tail
    if b'data: {"error"' in tail or b"[DONE]" not in tail:
        raise StreamFailed(f"the stream ended early: {_excerpt(tail)}")
    if not instants:
        raise StreamFailed(f"the answer holds no text: {_excerpt(tail)}")
    return Answer.timed(
        started,
        instants,
        completion=_count(tail, b"completion_tokens") or len(instants),
        prompt=_count(tail, b"prompt_tokens"),
        cached=_count(tail, b"cached_tokens"),
    )


def _count(tail: bytes, key: bytes) -> int:
    found: list[bytes] = re.findall(rb'"%s": ?(\d+)' % key, tail)
    return int(found[-1]) if found else 0


def _excerpt(tail: bytes) -> str:
    return " ".join(tail[-200:].decode(errors="replace").split())
