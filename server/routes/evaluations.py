"""`GET /admin/models/{name}/evaluations`: what was measured of a model, the newest first."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from model_registry.evaluations import Evaluation, EvaluationStore
from server.access import GuardedRoute, requires
from server.fine_tuned_names import as_registered
from server.gateway import Gateway
from server.openai.wire.errors import documented
from server.principal import AccessScope
from server.routes.job_bodies import Figures, finite


class EvaluationBody(BaseModel):
    """version: what was measured. details: intervals, scores of each question, what the data was."""

    version: str
    kind: str
    job: str | None
    created_at: float
    metrics: Figures
    details: dict[str, Any]


class EvaluationList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EvaluationBody]


def evaluations_router(gateway: Gateway, store: EvaluationStore) -> APIRouter:
    router = APIRouter(prefix="/admin/models", tags=["admin"], route_class=GuardedRoute)

    @router.get("/{name}/evaluations", responses=documented(400, 404, 500), summary="List what was measured of a model")
    @requires(AccessScope.READ, changes_state=False)
    async def evaluations(
        name: str, kind: Annotated[Literal["evaluate", "benchmark"] | None, Query(description="Only of this kind.")] = None
    ) -> EvaluationList:
        """By name, of all of its versions, or by `name:number`; kept also when the version is gone."""
        found = await asyncio.to_thread(store.of, as_registered(name), kind)
        if not found:
            await gateway.resolve(name)
        return EvaluationList(data=[_body(each) for each in found])

    return router


def _body(each: Evaluation) -> EvaluationBody:
    return EvaluationBody(
        version=each.version,
        kind=each.kind,
        job=each.job,
        created_at=each.created_at.timestamp(),
        metrics=finite(each.metrics),
        details=finite(each.details),
    )
