"""Probes: is the process alive, does the default model answer, which version is this."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from server.errors import MEANINGS, ErrorEnvelope, ErrorReply
from server.gateway import Gateway
from server.version import slmops_version

_RETRY_AFTER_S = "2"


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"


class Version(BaseModel):
    name: Literal["slmops"] = "slmops"
    version: str


def health_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["probes"])

    @router.get("/health", summary="Is the process alive?")
    async def health() -> Alive:
        return Alive()

    @router.get(
        "/ready",
        response_model=Ready,
        responses={503: {"model": ErrorEnvelope, "description": MEANINGS[503]}},
        summary="Does the default model answer?",
    )
    async def ready() -> Response:
        reason = gateway.why_not_ready()
        if reason is None:
            return JSONResponse(Ready().model_dump())
        headers = {"Retry-After": _RETRY_AFTER_S}
        return ErrorReply(503, reason, "server_error", "not_ready", None, headers).response()

    @router.get("/version", summary="Which version is this?")
    async def version() -> Version:
        return Version(version=slmops_version())

    return router
