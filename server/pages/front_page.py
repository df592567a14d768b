"""`GET /`: what this server is and where its parts are, as JSON for programs and as a page for browsers."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from server.http.access import GuardedRoute, open_to_all
from server.http.request_head import first_header
from server.pages.page import Page
from server.version import slmops_version

_LINKS = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "models": "/v1/models",
    "metrics": "/metrics",
    "health": "/health",
    "ready": "/ready",
}
_AS_A_PAGE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}


class FrontPage(BaseModel):
    """links: paths of this server."""

    name: Literal["slmops"] = "slmops"
    version: str
    links: dict[str, str]


def front_page_router() -> APIRouter:
    router = APIRouter(tags=["probes"], route_class=GuardedRoute)
    page = Page.read("front.html")

    @router.get("/", response_model=FrontPage, responses=_AS_A_PAGE, summary="Which server is this?")
    @open_to_all
    async def front_page(request: Request) -> Response:
        """A page for what accepts HTML. The page itself asks for the models, with the reader's key where one is needed."""
        accepted = first_header(request.scope["headers"], b"accept") or ""
        if "text/html" in accepted.lower():
            response: Response = page.response()
        else:
            response = JSONResponse(FrontPage(version=slmops_version(), links=_LINKS).model_dump())
        response.headers["Vary"] = "Accept"
        return response

    return router
