"""CORS (https://fetch.spec.whatwg.org/#http-cors-protocol): what pages that may use the daemon are allowed to read and to send.

starlette writes the headers. `security.Policy` decides who may use the daemon, from more than the origin, which is all that
starlette looks at.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.authentication import Authenticator
from server.http.request_head import RequestHead
from server.http.security import Policy

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_EXPOSED = ("X-Request-Id", "X-Slmops-Warning", "Retry-After")
_PREFLIGHT_AGE_S = 600


class _AnyOrigin(CORSMiddleware):
    """Of requests whose origin was decided on elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app,
            allow_methods=_METHODS,
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=_EXPOSED,
            max_age=_PREFLIGHT_AGE_S,
        )

    def is_allowed_origin(self, origin: str) -> bool:
        return True


class Cors(_AnyOrigin):
    """The layer around all others, so that pages which may use the daemon can read every answer, errors included."""

    def __init__(self, app: ASGIApp, policy: Policy, authenticator: Authenticator) -> None:
        super().__init__(app)
        self._policy = policy
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (head := RequestHead.of(scope)).origins and self._may_read(head):
            await self.simple_response(scope, receive, send, Headers(scope=scope))
        else:
            await self.app(scope, receive, send)

    def _may_read(self, head: RequestHead) -> bool:
        """Where a key is required, the Host is not checked: without a key no Host gives access."""
        is_host_allowed = self._authenticator.needs_key or head.host is None or self._policy.allows_host(head.host)
        return is_host_allowed and all(self._policy.allows_origin(origin, head.host) for origin in head.origins)


class Preflights(_AnyOrigin):
    """The layer beneath `Security`: answers the preflights that it lets in. Which page may read the answer, `Cors` says."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """204 whatever is requested: the browser compares it with what is allowed."""
        headers = super().preflight_response(request_headers).headers
        return Response(status_code=204, headers={name: headers[name] for name in headers if not name.startswith("content-")})

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: Headers) -> None:
        await self.app(scope, receive, send)
