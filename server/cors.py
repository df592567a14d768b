"""CORS headers (https://fetch.spec.whatwg.org/#http-cors-protocol): of answers to pages, and of answers to preflights."""

from __future__ import annotations

from starlette.types import Message, Send

from server.request_head import Headers, first_header

_METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
_PREFLIGHT_AGE_S = b"600"


def preflight_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """headers: of the preflight. Which origin may read the answer is said by `with_cors`, as of every answer."""
    wanted = first_header(headers, b"access-control-request-headers") or "authorization, content-type, x-api-key"
    answer = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-max-age", _PREFLIGHT_AGE_S),
    ]
    if first_header(headers, b"access-control-request-private-network") == "true":
        answer.append((b"access-control-allow-private-network", b"true"))
    return answer


def with_cors(send: Send, origin: str) -> Send:
    """The same `send`, which lets pages of this origin read the answer."""

    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_headers(origin)]
        await send(message)

    return send_with_cors


def _headers(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"X-Request-Id, X-Slmops-Warning, Retry-After"),
        (b"vary", b"Origin"),
    ]
