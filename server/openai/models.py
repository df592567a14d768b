"""`GET /v1/models` and `GET /v1/models/{id}`: what requests may name."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from server.errors import documented
from server.gateway import Gateway
from server.served_models import ServedModel


class ModelCard(BaseModel):
    """id: what a request's `model` may say; created: when the version came to this machine, in Unix seconds."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


def models_router(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["openai"])

    @router.get("/v1/models", responses=documented(500), summary="List the models")
    async def list_models() -> ModelList:
        return ModelList(data=[_card(model) for model in gateway.models.listed()])

    @router.get("/v1/models/{model_id:path}", responses=documented(404, 500), summary="Describe a model")
    async def retrieve_model(model_id: str) -> ModelCard:
        """By name, or by `name:number` for one version."""
        return _card(gateway.resolve(model_id))

    return router


def _card(model: ServedModel) -> ModelCard:
    return ModelCard(id=model.id, created=model.created, owned_by=model.owner)
