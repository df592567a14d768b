"""Probes (is the process alive, does the default model answer), the version, and `GET /metrics` for Prometheus."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from jobs.service import JobService
from server.dialects.openai.wire.errors import MEANINGS, ErrorEnvelope, documented
from server.http.access import CallerPrincipal, GuardedRoute, open_to_all, requires
from server.http.errors import ErrorKind, ErrorReply
from server.inference.readiness import Readiness
from server.metrics.series import Metrics
from server.principal import AccessScope
from server.version import slmops_version

_RETRY_AFTER_S = "2"
_WITHOUT_DETAILS = "The default model does not answer. Send a key with the scope `read` to see why."


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"


class Version(BaseModel):
    name: Literal["slmops"] = "slmops"
    version: str


def health_router(readiness: Readiness) -> APIRouter:
    router = APIRouter(tags=["probes"], route_class=GuardedRoute)

    @router.get("/health", summary="Is the process alive?")
    @open_to_all
    async def health() -> Alive:
        return Alive()

    @router.get(
        "/ready",
        response_model=Ready,
        responses={503: {"model": ErrorEnvelope, "description": MEANINGS[503]}},
        summary="Does the default model answer?",
    )
    @open_to_all
    async def ready(caller: CallerPrincipal, request: Request) -> Response:
        """The reason why it is not ready is a detail for callers with the scope `read`."""
        reason = readiness.why_not_ready()
        if reason is None:
            return JSONResponse(Ready().model_dump())
        reason = reason if caller.allows(AccessScope.READ) else _WITHOUT_DETAILS
        headers = {"Retry-After": _RETRY_AFTER_S}
        return ErrorReply(503, reason, ErrorKind.SERVER, "not_ready", None, headers).response(request.scope)

    @router.get("/version", summary="Which version is this?")
    @open_to_all
    async def version() -> Version:
        return Version(version=slmops_version())

    return router


_TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"


def metrics_router(metrics: Metrics, jobs: JobService) -> APIRouter:
    router = APIRouter(tags=["probes"], route_class=GuardedRoute)

    @router.get("/metrics", response_class=Response, responses=documented(500), summary="Metrics for Prometheus")
    @requires(AccessScope.READ, changes_state=False)
    async def read_metrics() -> Response:
        """vLLM's names under `vllm:`, our own under `slmops_`."""
        await jobs.count()
        return Response(metrics.exposition(), headers={"Content-Type": _TEXT_FORMAT})

    return router
