"""`GET /admin/models/{name}/evaluations` and `.../lineage`: what was measured of a model, and what it was made from."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from jobs.tasks.evaluate.metrics import few_questions
from model_registry.description import finite
from model_registry.evaluations import Evaluation, EvaluationStore
from model_registry.lineage import Lineage
from model_registry.names import parse_label
from server.admin.job_bodies import Figures
from server.dialects.openai.wire.errors import documented
from server.http.access import GuardedRoute, requires
from server.inference.fine_tuned_names import as_registered
from server.inference.gateway import Gateway
from server.principal import AccessScope
from server.storage.snapshots import RegistryAccess


class EvaluationBody(BaseModel):
    """version: what was measured. details: intervals, scores of each question, what the data was.

    num_questions: that the figures are of, null for a benchmark. warnings: e.g. that these are few.
    """

    version: str
    kind: str
    job: str | None
    created_at: float
    metrics: Figures
    details: dict[str, Any]
    num_questions: int | None
    warnings: list[str]


class EvaluationList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EvaluationBody]


def evaluations_router(gateway: Gateway, registry: RegistryAccess, store: EvaluationStore) -> APIRouter:
    """registry: whose models may have evaluations; gateway: knows what else requests may name, and what is missing."""
    router = APIRouter(prefix="/admin/models", tags=["admin"], route_class=GuardedRoute)

    @router.get("/{name}/evaluations", responses=documented(400, 404, 500), summary="List what was measured of a model")
    @requires(AccessScope.READ, changes_state=False)
    async def evaluations(
        name: str, kind: Annotated[Literal["evaluate", "benchmark"] | None, Query(description="Only of this kind.")] = None
    ) -> EvaluationList:
        """The evaluations of all versions of a name, or of one `name:number`; they stay when the version is deleted."""
        found = await asyncio.to_thread(store.of, as_registered(name), kind)
        if not found:
            await registry.refresh()
            if registry.snapshot.find(parse_label(as_registered(name))) is None:
                await gateway.resolve(name)
        return EvaluationList(data=[_body(each) for each in found])

    return router


def _body(each: Evaluation) -> EvaluationBody:
    count = each.details.get("num_questions")
    return EvaluationBody(
        version=each.version,
        kind=each.kind,
        job=each.job,
        created_at=each.created_at.timestamp(),
        metrics=finite(each.metrics),
        details=finite(each.details),
        num_questions=count,
        warnings=list(few_questions(count)) if count is not None else [],
    )


_JOB = "job:"


class LineageBody(BaseModel):
    """One version of the tree. asked: whether it is the requested one. job: the job that made it, null when pulled."""

    label: str
    asked: bool
    digest: str
    created_at: float
    size_bytes: int
    parent: str | None
    job: str | None
    importer: str
    source: str
    data_sha256: str | None
    parameters: dict[str, Any]
    metrics: Figures
    library_versions: dict[str, str]
    children: list[LineageBody]


def lineage_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(prefix="/admin/models", tags=["admin"], route_class=GuardedRoute)

    @router.get("/{name}/lineage", responses=documented(404, 422, 500), summary="Show what a model was made from")
    @requires(AccessScope.READ, changes_state=False)
    async def show(name: str) -> LineageBody:
        """The whole tree of the version, from its first ancestor that is still registered."""
        await gateway.models.refresh()
        version, tree = gateway.models.lineage(name)
        return lineage_body(tree, version.label)

    return router


def lineage_body(tree: Lineage, requested: str) -> LineageBody:
    version, manifest = tree.version, tree.version.manifest
    return LineageBody(
        label=version.label,
        asked=version.label == requested,
        digest=version.digest,
        created_at=version.created_at.timestamp(),
        size_bytes=version.size_bytes,
        parent=manifest.parent,
        job=manifest.source.removeprefix(_JOB) if manifest.source.startswith(_JOB) else None,
        importer=manifest.importer,
        source=manifest.source,
        data_sha256=manifest.data_sha256,
        parameters=finite(manifest.parameters),
        metrics=finite(manifest.metrics),
        library_versions=dict(manifest.library_versions),
        children=[lineage_body(child, requested) for child in tree.children],
    )
