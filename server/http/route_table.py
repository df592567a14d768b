"""Which route a request is for, found without running it: for the log and the metrics of requests that are refused before."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi.routing import APIRoute


class RouteTable:
    """The routes of one app, in its order."""

    def __init__(self, routes: Iterable[APIRoute]) -> None:
        self._plain: dict[str, str] = {}
        self._others: list[APIRoute] = []
        for route in routes:
            if route.param_convertors:
                self._others.append(route)
            else:
                self._plain[route.path] = route.path

    def template_of(self, method: str, path: str) -> str | None:
        """`/v1/models/{model_id:path}` of `/v1/models/a`, be it of another method; None of an unknown path."""
        if path in self._plain:
            return path
        matching = [route for route in self._others if route.path_regex.match(path)]
        best = next((route for route in matching if method in (route.methods or ())), None) or next(iter(matching), None)
        return best.path if best else None
