"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from jobs.service import JobService
from server.access import GuardedRoute, requires
from server.metrics import Metrics
from server.openai.wire.errors import documented
from server.principal import AccessScope

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
