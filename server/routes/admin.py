"""`/admin/models`: what is loaded, and loading and unloading by hand."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from runtime.pool import LoadedModel
from server.errors import ModelNotLoadedError, documented
from server.gateway import Gateway


class LoadedModelBody(BaseModel):
    """id: `name:number`. What only a ready worker knows is null before. Times are Unix seconds; idle_since: null while busy."""

    id: str
    state: str
    engine: str
    provider: str | None
    architecture: str | None
    context_length: int | None
    threads: int | None
    pid: int | None
    load_s: float | None
    resident_bytes: int | None
    kv_bytes: int | None
    kv_usage: float | None
    num_slots: int
    num_running: int
    num_waiting: int
    num_leases: int
    num_restarts: int
    loaded_at: float | None
    idle_since: float | None


class LoadedModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[LoadedModelBody]


class Unloaded(BaseModel):
    """The versions, as `name:number`, that are not loaded any more."""

    unloaded: list[str]


def admin_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(prefix="/admin/models", tags=["admin"])

    @router.get("", responses=documented(500), summary="List the loaded models")
    async def list_loaded() -> LoadedModelList:
        return LoadedModelList(data=[loaded_model_body(model) for model in gateway.loaded()])

    @router.post("/{name}/load", responses=documented(404, 500, 503), summary="Load a model")
    async def load(name: str) -> LoadedModelBody:
        """By name, or by `name:number`. Answers when it is loaded; no-op when it is already."""
        model = gateway.resolve(name)
        with await gateway.acquire(model):
            found = next(each for each in gateway.loaded() if each.spec.label == model.label)
            return loaded_model_body(found)

    @router.post("/{name}/unload", responses=documented(404, 500), summary="Unload a model")
    async def unload(name: str) -> Unloaded:
        """Every loaded version of that name, or with `name:number` that one. Running requests end with an error."""
        labels = await gateway.unload(name)
        if not labels:
            raise ModelNotLoadedError(name, [model.spec.label for model in gateway.loaded()])
        return Unloaded(unloaded=list(labels))

    return router


def loaded_model_body(model: LoadedModel) -> LoadedModelBody:
    info, stats = model.info, model.stats
    return LoadedModelBody(
        id=model.spec.label,
        state=model.state.value,
        engine=model.spec.engine,
        provider=info.provider if info else None,
        architecture=info.architecture if info else None,
        context_length=info.context_length if info else None,
        threads=info.threads if info else None,
        pid=info.pid if info else None,
        load_s=info.load_s if info else None,
        resident_bytes=stats.resident_bytes if stats else info.resident_bytes if info else None,
        kv_bytes=stats.kv_bytes if stats else None,
        kv_usage=stats.kv_usage if stats else None,
        num_slots=info.num_slots if info else model.spec.options.num_slots,
        num_running=stats.num_running if stats else 0,
        num_waiting=stats.num_waiting if stats else 0,
        num_leases=model.num_leases,
        num_restarts=model.num_restarts,
        loaded_at=model.loaded_at,
        idle_since=model.idle_since,
    )
