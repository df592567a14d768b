"""The headers of a request that identify its sender: Host, Origin, Sec-Fetch-Site and the API key. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import Scope

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """hosts, origins: every one that was sent, as it was sent. secret: of the key, None when none was sent."""

    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    fetch_site: str | None
    secret: bytes | None
    is_preflight: bool

    @classmethod
    def of(cls, scope: Scope) -> RequestHead:
        """scope: of an HTTP request."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        asks_for_method = first_header(headers, b"access-control-request-method") is not None
        return cls(
            hosts=_all(headers, b"host"),
            origins=_all(headers, b"origin"),
            fetch_site=first_header(headers, b"sec-fetch-site"),
            secret=_secret(headers),
            is_preflight=scope["method"] == "OPTIONS" and asks_for_method,
        )

    @property
    def host(self) -> str | None:
        return self.hosts[0] if self.hosts else None


def first_header(headers: Headers, wanted: bytes) -> str | None:
    return next(iter(_all(headers, wanted)), None)


def _all(headers: Headers, wanted: bytes) -> tuple[str, ...]:
    return tuple(value.decode("latin-1") for name, value in headers if name == wanted)


def _secret(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """`Authorization: Bearer KEY`, as OpenAI's clients send it, else `x-api-key: KEY`, as Anthropic's do."""
    found = dict(reversed(headers))  # of several headers with one name the first
    scheme, _, key = found.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return found.get(b"x-api-key", b"").strip() or None
