"""Who may talk to the daemon: Host and Origin checks against web pages, CORS for those allowed, and the API key.

Pure ASGI layers. `Policy` decides, from values; `Security` and `Cors` act. Knows no routes but the open paths.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import BY_STATUS, ErrorReply
from server.settings import Settings

OPEN_PATHS = frozenset({"/health", "/ready", "/version"})
_METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
_PREFLIGHT_AGE_S = b"600"


def is_loopback(host: str) -> bool:
    """Whether a host name or address (no port, no brackets) means this machine and nothing else."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def host_of(authority: str) -> str | None:
    """`example.com:80` -> `example.com`, `[::1]:80` -> `::1`; None for what is no authority."""
    try:
        parts = urlsplit(f"//{authority}")
        _ = parts.port  # raises when it is no number
    except ValueError:
        return None
    return parts.hostname if not (parts.path or parts.query or parts.fragment or "@" in authority) else None


@dataclass(frozen=True, slots=True)
class Policy:
    """What is allowed. bound_to: the address the daemon listens on; patterns: allowed_hosts; origins: cors_origins."""

    bound_to: str
    patterns: tuple[str, ...]
    origins: frozenset[str]
    api_key: bytes | None

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        key = settings.api_key.get_secret_value().encode() if settings.api_key else None
        origins = frozenset(origin.lower().rstrip("/") for origin in settings.cors_origins)
        return cls(settings.host, tuple(name.lower() for name in settings.allowed_hosts), origins, key)

    def allows_host(self, authority: str) -> bool:
        """Refuses names, which an attacker's DNS may point here. An address cannot be rebound, if we listen beyond loopback."""
        host = host_of(authority)
        if host is None:
            return False
        if is_loopback(host) or any(_matches(host, pattern) for pattern in self.patterns):
            return True
        return not is_loopback(self.bound_to) and (_address(host) is not None or host == self.bound_to.lower())

    def allows_origin(self, origin: str, authority: str | None) -> bool:
        """Pages of this machine, of the daemon itself (its docs), and those the operator named."""
        if origin.lower() in self.origins or "*" in self.origins:
            return True
        scheme, _, origin_authority = origin.partition("://")
        host = host_of(origin_authority) if scheme in ("http", "https") else None
        return host is not None and (is_loopback(host) or origin_authority.lower() == (authority or "").lower())

    def allows_key(self, authorization: str | None) -> bool:
        if self.api_key is None:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(key.strip().encode("latin-1"), self.api_key)


def _matches(host: str, pattern: str) -> bool:
    return pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


class Security:
    """The layer. Refuses with 403 (Host, Origin) or 401 (key) before anything else sees the request."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        origin = _first(headers, b"origin")
        refusal = self._refusal(scope["path"], headers, origin, is_preflight := _is_preflight(scope, headers))
        if refusal is not None:
            await refusal.response()(scope, receive, send)
        elif origin is not None and is_preflight:
            await send({"type": "http.response.start", "status": 204, "headers": _preflight_headers(headers)})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, send)

    def _refusal(
        self, path: str, headers: Iterable[tuple[bytes, bytes]], origin: str | None, is_preflight: bool
    ) -> ErrorReply | None:
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        for host in hosts:
            if not self._policy.allows_host(host):
                return _forbidden(
                    f"The Host {host[:200]!r} is not allowed, which protects from DNS rebinding. Use localhost, "
                    "or add the name to allowed_hosts (SLMOPS_ALLOWED_HOSTS).",
                    "host_not_allowed",
                )
        if origin is not None and not self._policy.allows_origin(origin, hosts[0] if hosts else None):
            return _forbidden(
                f"Pages of the origin {origin[:200]!r} may not use this server. Add it to cors_origins (SLMOPS_CORS_ORIGINS).",
                "origin_not_allowed",
            )
        if is_preflight or path in OPEN_PATHS or self._policy.allows_key(_first(headers, b"authorization")):
            return None
        rule = BY_STATUS[401]
        message = "The API key is missing or wrong. Send it as `Authorization: Bearer KEY`."
        return ErrorReply(401, message, rule.type, rule.code, None, {"WWW-Authenticate": "Bearer"})


class Cors:
    """The layer around all others, so that pages which may use the daemon can read every answer, errors included."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = _first(scope["headers"], b"origin") if scope["type"] == "http" else None
        if origin is not None and self._may_read(origin, _first(scope["headers"], b"host")):
            send = _with_cors(send, origin)
        await self._app(scope, receive, send)

    def _may_read(self, origin: str, host: str | None) -> bool:
        return (host is None or self._policy.allows_host(host)) and self._policy.allows_origin(origin, host)


def _forbidden(message: str, code: str) -> ErrorReply:
    return ErrorReply(403, message, BY_STATUS[403].type, code)


def _first(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in headers if name == wanted), None)


def _is_preflight(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return scope["method"] == "OPTIONS" and _first(headers, b"access-control-request-method") is not None


def _preflight_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    wanted = _first(headers, b"access-control-request-headers") or "authorization, content-type"
    answer = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-max-age", _PREFLIGHT_AGE_S),
    ]
    if _first(headers, b"access-control-request-private-network") == "true":
        answer.append((b"access-control-allow-private-network", b"true"))
    return answer


def _cors_headers(origin: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"X-Request-Id, X-Slmops-Warning, Retry-After"),
        (b"vary", b"Origin"),
    ]


def _with_cors(send: Send, origin: str) -> Send:
    async def send_with_cors(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_cors_headers(origin)]
        await send(message)

    return send_with_cors
