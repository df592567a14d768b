"""Every route of the real app with what it declares, however deep routers are nested in it. Knows no requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from server.http.access import Access, declared_access
from server.principal import AccessScope

ORDER = {"none": 0, "any key": 1, **{scope.value: number for number, scope in enumerate(AccessScope, 2)}}


@dataclass(frozen=True, slots=True)
class DeclaredRoute:
    """access: None when it declares nothing. is_documented: whether the OpenAPI document has it."""

    method: str
    path: str
    access: Access | None
    is_documented: bool

    @property
    def needs(self) -> str:
        """In a word: a scope, several, `any key`, or `none`."""
        if self.access is None or self.access.is_open:
            return "none"
        return " or ".join(scope.value for scope in self.access.scopes) or "any key"


def declared_routes(app: FastAPI) -> list[DeclaredRoute]:
    """By scope, in the app's order. HEAD stands for itself only where there is no GET."""
    found = [
        DeclaredRoute(method, route.path, declared_access(route.endpoint), route.include_in_schema)
        for route in _flat(app.routes)
        for method in sorted(route.methods - ({"HEAD"} if "GET" in route.methods else set()))
    ]
    paths = {(each.method, each.path) for each in found}
    kept = [each for each in found if each.method != "HEAD" or ("GET", each.path) not in paths]
    return sorted(kept, key=lambda each: ORDER[each.needs.partition(" or ")[0]])


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    """FastAPI keeps an included router as one entry since 0.130 or so, and copies its routes before."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from _flat(inner.routes)
