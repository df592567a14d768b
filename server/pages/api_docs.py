"""`/openapi.json`, and `/docs`: Swagger UI, whose files a Python package brings, so that it works without a network.

Neither needs a key, for they hold no secrets; the calls made from the page do.
"""

from __future__ import annotations

import asyncio
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, JSONResponse, Response

from server.http.access import GuardedRoute, open_to_all
from server.pages.page import Page

_ASSET_HEADERS = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}


def api_docs_router(app: FastAPI) -> APIRouter:
    """app: the one that is described, whose other routes may be added later."""
    router = APIRouter(route_class=GuardedRoute, include_in_schema=False)
    page = Page.read("docs.html", {"script-src": "'self'", "style-src": "'self' 'unsafe-inline'"})
    assets = Path(str(resources.files("fastapi_offline"))) / "static"
    written: list[bytes] = []

    @router.get("/openapi.json")
    @open_to_all
    async def openapi_document() -> Response:
        if not written:
            written.append(await asyncio.to_thread(lambda: bytes(JSONResponse(app.openapi()).body)))
        return Response(written[0], media_type="application/json")

    @router.get("/docs")
    @open_to_all
    async def docs() -> Response:
        return page.response()

    @router.get("/docs/swagger-ui-bundle.js")
    @open_to_all
    async def swagger_ui() -> Response:
        return FileResponse(assets / "swagger-ui-bundle.js", media_type="text/javascript", headers=_ASSET_HEADERS)

    @router.get("/docs/swagger-ui.css")
    @open_to_all
    async def swagger_ui_style() -> Response:
        return FileResponse(assets / "swagger-ui.css", media_type="text/css", headers=_ASSET_HEADERS)

    return router
