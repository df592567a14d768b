"""`/admin/models`: what is loaded, and loading, reloading and unloading by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from model_registry.records import Capability
from runtime.pool.loaded_model import FOREVER, LoadedModel, LoadedReplica
from server.dialects.openai.wire.errors import documented
from server.http.access import requires
from server.http.errors import ModelNotLoadedError
from server.http.json_route import SmallJsonRoute
from server.inference.gateway import Gateway
from server.inference.model_control import ModelControl
from server.principal import AccessScope
from server.settings.models import ModelSettings
from server.settings.units import KEPT_FOREVER, KeepAlive


class FallbackBody(BaseModel):
    """A way to run the model that was preferred and could not load it. variant: the build, empty of the fake engine."""

    engine: str
    provider: str
    variant: str
    why: str


class UnusedBuildBody(BaseModel):
    """A build of the version that this machine cannot run. provider: the short name of the one that it is built for."""

    variant: str
    provider: str
    why: str


class ReplicaBody(BaseModel):
    """One worker."""

    state: str
    pid: int | None
    threads: int | None
    resident_bytes: int | None
    num_running: int
    num_waiting: int
    num_restarts: int


class LoadedModelBody(BaseModel):
    """id: `name:number`. What only a ready worker knows is null before. Times are Unix seconds; idle_since: null while busy.

    charge_bytes: what the memory budget counts. keep_alive_s: -1 for ever. expires_at: null while busy, and when it stays.
    threads, resident_bytes, kv_bytes, num_*: of all replicas together. reason: why it runs where it runs.
    tool_format, reasoning_format: how it writes calls and thoughts; null also when it writes none.
    chat_template_error: why it cannot chat, though it has a chat template; null where it can, or has none.
    capabilities: what requests may need of it; before a worker is ready, what the version allows.
    fallbacks: what was tried first and could not load. unused: other builds of the version, which are not tried.
    """

    id: str
    state: str
    engine: str | None
    provider: str | None
    variant: str | None
    reason: str | None
    fallbacks: list[FallbackBody]
    unused: list[UnusedBuildBody]
    capabilities: list[Capability]
    architecture: str | None
    context_length: int | None
    tool_format: str | None
    reasoning_format: str | None
    chat_template_error: str | None
    threads: int | None
    pid: int | None
    load_s: float | None
    resident_bytes: int | None
    charge_bytes: int
    kv_bytes: int | None
    kv_usage: float | None
    num_slots: int
    num_running: int
    num_waiting: int
    num_leases: int
    num_restarts: int
    replicas: list[ReplicaBody]
    pinned: bool
    keep_alive_s: float
    loaded_at: float | None
    idle_since: float | None
    expires_at: float | None


class BrokenBody(BaseModel):
    """A model that failed repeatedly and is not tried for now."""

    id: str
    why: str


class LoadedModelList(BaseModel):
    """memory_charged_bytes: of the budget, what the models are charged. waiting: models whose load waits for room."""

    object: Literal["list"] = "list"
    data: list[LoadedModelBody]
    memory_budget_bytes: int
    memory_charged_bytes: int
    max_loaded_models: int | None
    waiting: list[str]
    broken: list[BrokenBody]


class LoadRequest(BaseModel):
    """keep_alive: how long it stays without requests. pin: whether it stays whatever happens. Null changes nothing.

    Both hold until the daemon ends, also when the model is loaded again.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keep_alive: KeepAlive | None = None
    pin: bool | None = None


class UnloadRequest(BaseModel):
    """grace_s: what running requests get to finish."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    grace_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0


class Unloaded(BaseModel):
    """The versions, as `name:number`, that are not loaded any more."""

    unloaded: list[str]


class Reset(BaseModel):
    """The version whose failures are forgotten."""

    reset: str


def admin_router(gateway: Gateway, control: ModelControl) -> APIRouter:
    router = APIRouter(prefix="/admin/models", tags=["admin"], route_class=SmallJsonRoute)

    @router.get("", responses=documented(500), summary="List the loaded models")
    @requires(AccessScope.READ, changes_state=False)
    async def list_loaded() -> LoadedModelList:
        loaded, budget = gateway.pool.loaded(), gateway.pool.limits.budget
        return LoadedModelList(
            data=[loaded_model_body(model) for model in loaded],
            memory_budget_bytes=budget.memory_bytes,
            memory_charged_bytes=sum(model.charge_bytes for model in loaded),
            max_loaded_models=budget.max_models,
            waiting=list(gateway.pool.waiting()),
            broken=[BrokenBody(id=label, why=why.message) for label, why in gateway.pool.broken().items()],
        )

    @router.post("/{name}/load", responses=documented(400, 404, 500, 503), summary="Load a model")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def load(name: str, body: LoadRequest | None = None) -> LoadedModelBody:
        """Loads a model by name or `name:number`. Answers when it is loaded; does nothing if it is loaded already."""
        model, body = (await gateway.resolve(name)).model, body or LoadRequest()
        with await control.load(model, ModelSettings(keep_alive=body.keep_alive, pin=body.pin)):
            return _body_of(model.label, gateway.pool.loaded())

    @router.post("/{name}/reload", responses=documented(400, 404, 500, 503), summary="Reload a model with other settings")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def reload(name: str, changes: ModelSettings | None = None) -> LoadedModelBody:
        """No request fails: the old workers serve until the new ones can. What is changed holds until the daemon ends."""
        model = (await gateway.resolve(name)).model
        with await control.reload(model, changes or ModelSettings()):
            return _body_of(model.label, gateway.pool.loaded())

    @router.post("/{name}/unload", responses=documented(400, 404, 500), summary="Unload a model")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def unload(name: str, body: UnloadRequest | None = None) -> Unloaded:
        """Every loaded version of that name, or with `name:number` that one. Requests not done within grace_s end with an error."""
        labels = await control.unload(name, grace_s=(body or UnloadRequest()).grace_s)
        if not labels:
            raise ModelNotLoadedError(name, [model.spec.label for model in gateway.pool.loaded()])
        return Unloaded(unloaded=list(labels))

    @router.post("/{name}/reset", responses=documented(404, 500), summary="Try a model again that failed repeatedly")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def reset(name: str) -> Reset:
        """Forgets its failures; the next request loads it."""
        label = (await gateway.resolve(name)).label
        gateway.pool.reset(label)
        return Reset(reset=label)

    return router


def _body_of(label: str, loaded: Sequence[LoadedModel]) -> LoadedModelBody:
    """The first of this label: what leaves stands last. Raises ModelNotLoadedError when it was unloaded meanwhile."""
    found = next((model for model in loaded if model.spec.label == label), None)
    if found is None:
        raise ModelNotLoadedError(label, [model.spec.label for model in loaded])
    return loaded_model_body(found)


def loaded_model_body(model: LoadedModel) -> LoadedModelBody:
    info, stats, candidate = model.info, model.stats, model.candidate
    return LoadedModelBody(
        id=model.spec.label,
        state=model.state.value,
        engine=candidate.engine if candidate else None,
        provider=info.provider if info else None,
        variant=candidate.variant if candidate else None,
        reason=candidate.reason if candidate else None,
        fallbacks=[
            FallbackBody(
                engine=each.candidate.engine,
                provider=each.candidate.provider.name,
                variant=each.candidate.variant,
                why=each.why,
            )
            for each in model.fallbacks
        ],
        unused=[
            UnusedBuildBody(variant=each.variant, provider=each.provider, why=each.why)
            for each in model.spec.unused
            if each.variant is not None
        ],
        capabilities=sorted(model.capabilities),
        architecture=info.architecture if info else None,
        context_length=info.context_length if info else None,
        tool_format=info.tool_format if info else None,
        reasoning_format=info.reasoning_format if info else None,
        chat_template_error=info.chat_template_error if info else None,
        threads=stats.threads if stats else info.threads if info else None,
        pid=info.pid if info else None,
        load_s=info.load_s if info else None,
        resident_bytes=stats.resident_bytes if stats else info.resident_bytes if info else None,
        charge_bytes=model.charge_bytes,
        kv_bytes=stats.kv_bytes if stats else None,
        kv_usage=stats.kv_usage if stats else None,
        num_slots=model.num_slots,
        num_running=stats.num_running if stats else 0,
        num_waiting=stats.num_waiting if stats else 0,
        num_leases=model.num_leases,
        num_restarts=model.num_restarts,
        replicas=[_replica_body(replica) for replica in model.replicas],
        pinned=model.pinned,
        keep_alive_s=KEPT_FOREVER if model.keep_alive_s == FOREVER else model.keep_alive_s,
        loaded_at=model.loaded_at,
        idle_since=model.idle_since,
        expires_at=model.expires_at,
    )


def _replica_body(replica: LoadedReplica) -> ReplicaBody:
    info, stats = replica.info, replica.stats
    return ReplicaBody(
        state=replica.state.value,
        pid=info.pid if info else None,
        threads=stats.threads if stats else None,
        resident_bytes=stats.resident_bytes if stats else info.resident_bytes if info else None,
        num_running=stats.num_running if stats else 0,
        num_waiting=stats.num_waiting if stats else 0,
        num_restarts=replica.num_restarts,
    )
