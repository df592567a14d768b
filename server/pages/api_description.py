"""The OpenAPI document of the app, with what FastAPI cannot know: how a key is sent, and which scope each route needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from server.http.access import Access, declared_access

SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key made by `slmops keys create`, or the setting `api_key`. Not needed while there is no key.",
    },
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key in Anthropic's header."},
}
_REQUIREMENT: list[dict[str, list[str]]] = [{"bearer": []}, {"x-api-key": []}, {}]  # the last: no key, while none exists


class DescribedApp(FastAPI):
    """guarded: the routes that declare their access, set once all are known."""

    guarded: Iterable[APIRoute] = ()

    def openapi(self) -> dict[str, Any]:
        """Made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            document.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
            for route in self.guarded:
                access = declared_access(route.endpoint)
                if route.include_in_schema and access is not None:
                    _describe(document["paths"][route.path_format], route.methods or (), access)
        assert self.openapi_schema is not None, "FastAPI keeps what it made"
        return self.openapi_schema


def _describe(operations: dict[str, Any], methods: Iterable[str], access: Access) -> None:
    for method in methods:
        operation = operations.get(method.lower())
        if operation is not None and not access.is_open:
            operation["security"] = _REQUIREMENT
            paragraphs = (operation.get("description"), _needs(access))
            operation["description"] = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _needs(access: Access) -> str:
    scopes = " or ".join(f"`{scope}`" for scope in access.scopes)
    return f"Needs a key with the scope {scopes}." if scopes else "Needs a key of any scope."
