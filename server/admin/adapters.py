"""`/admin/models/{name}/adapters`: LoRA adapters that are served on a loaded base, as `BASE:ADAPTER`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from server.dialects.openai.wire.errors import documented
from server.http.access import requires
from server.http.json_route import SmallJsonRoute
from server.inference.adapters import Adapters
from server.inference.served_models import Attached
from server.principal import AccessScope


class AttachBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="The name that requests use for it, after the base and a colon.", examples=["support"])
    adapter: str = Field(description="A tuned version that has an adapter.", examples=["smollm2-135m-tuned"])


class AdapterBody(BaseModel):
    """id: what requests name. base: the version that it is served on. adapter: the tuned version whose adapter it is."""

    object: Literal["adapter"] = "adapter"
    id: str
    base: str
    name: str
    adapter: str


class AdapterList(BaseModel):
    object: Literal["list"] = "list"
    data: list[AdapterBody]


class Detached(BaseModel):
    id: str
    deleted: Literal[True] = True


def adapters_router(adapters: Adapters) -> APIRouter:
    router = APIRouter(prefix="/admin/models", tags=["admin"], route_class=SmallJsonRoute)

    @router.get("/{name}/adapters", responses=documented(404, 500), summary="List a model's adapters")
    @requires(AccessScope.READ, changes_state=False)
    async def attached(name: str) -> AdapterList:
        return AdapterList(data=[_body(each) for each in await adapters.attached(name)])

    @router.post(
        "/{name}/adapters", status_code=201, responses=documented(400, 404, 422, 500, 503), summary="Serve an adapter on a model"
    )
    @requires(AccessScope.ADMIN, changes_state=True)
    async def attach(name: str, body: AttachBody) -> AdapterBody:
        """From then on `NAME:ADAPTER` is a model of chat requests. A loaded base is reloaded beside itself; no request is lost."""
        return _body(await adapters.attach(name, body.name, body.adapter))

    @router.delete("/{name}/adapters/{adapter}", responses=documented(404, 500, 503), summary="Stop serving an adapter")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def detach(name: str, adapter: str) -> Detached:
        return Detached(id=_body(await adapters.detach(name, adapter)).id)

    return router


def _body(attached: Attached) -> AdapterBody:
    each = attached.attachment
    return AdapterBody(id=f"{each.model}:{each.name}", base=attached.base.label, name=each.name, adapter=each.version)
