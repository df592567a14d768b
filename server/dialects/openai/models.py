"""`/v1/models`: what requests may name; tuned models are deleted here too."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from model_registry.records import Capability
from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.wire.errors import documented
from server.http.access import GuardedRoute, requires
from server.inference.fine_tuned_names import registered_of
from server.inference.gateway import Gateway
from server.inference.model_control import ModelControl
from server.inference.resolution import Resolution
from server.principal import AccessScope


class ModelCard(BaseModel):
    """id: a valid `model` of a request; created: when the version came to this machine, in Unix seconds.

    capabilities: of the model as it is loaded; else what its version allows, of which the engine that loads it may lack some.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "slmops"
    capabilities: list[Capability]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


def models_router(gateway: Gateway, control: ModelControl) -> APIRouter:
    router = APIRouter(tags=["openai"], route_class=GuardedRoute)

    def card(found: Resolution) -> ModelCard:
        capabilities = sorted(gateway.capabilities_of(found.model))
        return ModelCard(id=found.name, created=found.model.created, capabilities=capabilities)

    @router.get("/v1/models", responses=documented(500), summary="List the models")
    @requires(AccessScope.INFERENCE, AccessScope.READ, changes_state=False)
    async def list_models() -> ModelList:
        await gateway.models.refresh()
        return ModelList(data=[card(found) for found in gateway.models.listed()])

    @router.get("/v1/models/{model_id:path}", responses=documented(404, 500), summary="Describe a model")
    @requires(AccessScope.INFERENCE, AccessScope.READ, changes_state=False)
    async def retrieve_model(model_id: str) -> ModelCard:
        """A model by name, or a version by `name:number`."""
        return card(await gateway.resolve(model_id))

    @router.delete("/v1/models/{model_id:path}", responses=documented(400, 404, 409, 500), summary="Delete a tuned model")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def delete_model(model_id: str) -> ModelDeleted:
        """Deletes the model of a fine-tuning job, by its name `ft:...`. Running requests are answered first."""
        found = await gateway.resolve(model_id)
        if registered_of(model_id) is None:
            message = f"{model_id} is no fine-tuning job's model, whose name begins with ft:. Remove it by `slmops rm {model_id}`."
            raise InvalidParam(message, param="model")
        await control.unload(found.label, grace_s=gateway.settings.shutdown_grace_s)
        await gateway.models.remove(found.label)
        return ModelDeleted(id=model_id)

    return router
