"""Who may talk to the daemon: the key, and the Host and Origin checks against web pages.

A pure ASGI layer. `Policy` decides on hosts and pages and `Authenticator` on keys, from values; `Security` acts. They find
out who the caller is; what a route requires of the caller is declared at the route (`access.py`). Knows no routes but the open
paths.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.authentication import Authenticator, Rejection
from server.http.errors import BY_STATUS, ErrorReply
from server.http.request_head import RequestHead
from server.http.request_record import RequestRecord
from server.principal import ANONYMOUS, Principal
from server.settings.daemon import Settings

OPEN_PATHS = frozenset(
    {"/", "/health", "/ready", "/version", "/openapi.json", "/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"}
)
_OTHER_SITES = frozenset({"cross-site", "same-site"})  # same-site: another port or subdomain
_UNNAMED = "another site"
_REJECTIONS: Mapping[Rejection, tuple[str, str]] = {
    Rejection.MISSING: ("invalid_api_key", "An API key is needed. Send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`."),
    Rejection.UNKNOWN: ("invalid_api_key", "The API key is wrong: no such key is known here."),
    Rejection.EXPIRED: ("expired_api_key", "The API key has expired. Use another, or create one by `slmops keys create`."),
    Rejection.REVOKED: ("revoked_api_key", "The API key was revoked. Use another, or create one by `slmops keys create`."),
}


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

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        origins = frozenset(origin.lower().rstrip("/") for origin in settings.cors_origins)
        return cls(settings.host, tuple(name.lower() for name in settings.allowed_hosts), origins)

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
        if self._is_named(origin):
            return True
        scheme, _, origin_authority = origin.partition("://")
        host = host_of(origin_authority) if scheme in ("http", "https") else None
        return host is not None and (is_loopback(host) or _is_own(origin, authority))

    def foreign_page(self, head: RequestHead) -> str | None:
        """The origin of the page that makes the request, when that may change nothing: any page but the daemon's own and those
        that the operator named, those of this machine included. None for programs, which send no such headers.
        """
        for origin in head.origins:
            if not self._is_named(origin) and not _is_own(origin, head.host):
                return origin
        is_from_elsewhere = not head.origins and (head.fetch_site or "").lower() in _OTHER_SITES
        return _UNNAMED if is_from_elsewhere else None

    def _is_named(self, origin: str) -> bool:
        return origin.lower() in self.origins or "*" in self.origins


def _is_own(origin: str, authority: str | None) -> bool:
    """Whether a page of this origin came from the Host that the request names."""
    scheme, _, origin_authority = origin.partition("://")
    return scheme in ("http", "https") and bool(authority) and origin_authority.lower() == (authority or "").lower()


def _matches(host: str, pattern: str) -> bool:
    return pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


class Security:
    """The layer.

    Refuses with 403 (Host, Origin) or 401 (key) before anything else sees the request; sets the principal of the others.
    """

    def __init__(self, app: ASGIApp, policy: Policy, authenticator: Authenticator) -> None:
        self._app = app
        self._policy = policy
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head, record = RequestHead.of(scope), RequestRecord.of(scope)
        found = self._authenticator.identify(head.secret)
        record.principal = found if isinstance(found, Principal) else ANONYMOUS
        record.foreign_page = self._policy.foreign_page(head)
        refusal = self._refusal(scope["path"], head, found)
        if refusal is not None:
            record.code = refusal.code
            await refusal.response(scope)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, path: str, head: RequestHead, found: Principal | Rejection) -> ErrorReply | None:
        """1. the Host, where no key is needed: where one is, no Host gives access without it; 2. the Origin; 3. the key."""
        for host in () if self._authenticator.needs_key else head.hosts:
            if not self._policy.allows_host(host):
                return _forbidden(_about_host(host), "host_not_allowed")
        for origin in head.origins:
            if not self._policy.allows_origin(origin, head.host):
                return _forbidden(
                    f"Pages of the origin {origin[:200]!r} may not use this server. Add it to cors_origins (SLMOPS_CORS_ORIGINS).",
                    "origin_not_allowed",
                )
        if head.is_preflight or path in OPEN_PATHS or isinstance(found, Principal):
            return None
        code, message = _REJECTIONS[found]
        return ErrorReply(401, message, BY_STATUS[401].kind, code, None, {"WWW-Authenticate": "Bearer"})


def _about_host(host: str) -> str:
    return (
        f"The Host {host[:200]!r} is not allowed, which protects from DNS rebinding. Use localhost, create a key by "
        "`slmops keys create`, or add the name to allowed_hosts (SLMOPS_ALLOWED_HOSTS)."
    )


def _forbidden(message: str, code: str) -> ErrorReply:
    return ErrorReply(403, message, BY_STATUS[403].kind, code)
