"""The access that a route requires of its caller: declared beside the route, enforced before its body is read.

`requires` and `open_to_all` declare, `Access.check` decides, `GuardedRoute` enforces. Knows no keys and no headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from server.http.request_record import RequestRecord
from server.principal import AccessScope, InsufficientScope, Principal

_DECLARED = "slmops_access"
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class ForeignPage(Exception):
    """A web page of another origin calls what changes state."""

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"Pages of the origin {origin[:200]!r} may not change anything here. "
            "If you trust the page, add its origin to cors_origins (SLMOPS_CORS_ORIGINS)."
        )


@dataclass(frozen=True, slots=True)
class Access:
    """scopes: any of them suffices; when there is none, any key does. is_open: not even a key is needed.

    changes_state: whether it may change something that outlasts the answer: then no foreign page may call it.
    """

    scopes: tuple[AccessScope, ...]
    changes_state: bool
    is_open: bool = False

    def check(self, principal: Principal, foreign_page: str | None) -> None:
        """Raises ForeignPage, InsufficientScope."""
        if self.changes_state and foreign_page is not None:
            raise ForeignPage(foreign_page)
        if self.scopes and not any(principal.allows(scope) for scope in self.scopes):
            raise InsufficientScope(principal, self.scopes)


def requires(*scopes: AccessScope, changes_state: bool) -> Callable[[Endpoint], Endpoint]:
    """Declares what a route needs: `@requires(AccessScope.JOBS, changes_state=True)`, below the route's own decorator."""
    return _declaring(Access(scopes, changes_state))


def open_to_all(endpoint: Endpoint) -> Endpoint:
    """Declares that a route answers without any key."""
    return _declaring(Access((), changes_state=False, is_open=True))(endpoint)


def _declaring(access: Access) -> Callable[[Endpoint], Endpoint]:
    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, access)
        return endpoint

    return declare


def declared_access(endpoint: Callable[..., Any]) -> Access | None:
    """None when it declares nothing."""
    access: Access | None = getattr(endpoint, _DECLARED, None)
    return access


class GuardedRoute(APIRoute):
    """Refuses a caller that may not enter, before anything of the request's body is read."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        access, record = declared_access(self.endpoint), RequestRecord.of(scope)
        if access is None:
            raise TypeError(f"{self!r} declares no access")
        if not self.methods or scope["method"] in self.methods:  # else it is a 405
            access.check(record.principal, record.foreign_page)
        await super().handle(scope, receive, send)


def guarded_routes(routes: Iterable[BaseRoute]) -> Iterator[GuardedRoute]:
    """The same routes. Raises TypeError for a route that declares nothing, or that nothing guards: it must not be served."""
    for route in routes:
        if not isinstance(route, GuardedRoute) or declared_access(route.endpoint) is None:
            raise TypeError(f"{route!r} must be a GuardedRoute that declares its access by `requires` or `open_to_all`")
        yield route


async def _principal_of(request: Request) -> Principal:
    return RequestRecord.of(request.scope).principal


CallerPrincipal = Annotated[Principal, Depends(_principal_of)]
"""As an endpoint's parameter: the caller."""
