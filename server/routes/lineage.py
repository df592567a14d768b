"""`GET /admin/models/{name}/lineage`: what a version was made from and by, and what was made from it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from model_registry.lineage import Lineage
from server.access import GuardedRoute, requires
from server.gateway import Gateway
from server.openai.wire.errors import documented
from server.principal import AccessScope
from server.routes.job_bodies import Figures, finite

_JOB = "job:"


class LineageBody(BaseModel):
    """One version of the tree. asked: whether it is the one that was asked for. job: the job that made it, null when pulled."""

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
        """The whole tree that the version stands in, from its first ancestor that is still registered."""
        await gateway.models.refresh()
        version, tree = gateway.models.lineage(name)
        return lineage_body(tree, version.label)

    return router


def lineage_body(tree: Lineage, asked: str) -> LineageBody:
    version, manifest = tree.version, tree.version.manifest
    return LineageBody(
        label=version.label,
        asked=version.label == asked,
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
        children=[lineage_body(child, asked) for child in tree.children],
    )
