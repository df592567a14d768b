"""`/admin/registry/models/{name}/aliases`: which version a name means, moved without ending a request that runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from model_registry.aliases import alias_named
from model_registry.description import AliasDescription, describe_alias
from model_registry.names import ALIAS_PATTERN, MAX_NAME_CHARS
from model_registry.records import Alias
from model_registry.registry import Registry
from server.admin.registry.versions import version_label
from server.dialects.openai.wire.errors import documented
from server.http.access import requires
from server.http.json_route import SmallJsonRoute
from server.inference.fine_tuned_names import as_registered
from server.principal import AccessScope
from server.storage.snapshots import RegistryAccess

NewAlias = Annotated[str, Path(pattern=f"^{ALIAS_PATTERN}$", max_length=MAX_NAME_CHARS)]


def _number_or_alias(value: Any) -> Any:
    """Before the union is read, whose own errors would name its branches instead of the field."""
    is_number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 10**9
    if is_number or (isinstance(value, str) and 1 <= len(value) <= MAX_NAME_CHARS):
        return value
    raise PydanticCustomError("version", "must be the number of a version, or an alias such as `previous`")


class AliasRequest(BaseModel):
    """version: a number, or another alias of the model such as `previous`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: Annotated[
        Annotated[int, Field(ge=1, le=10**9 - 1)] | Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)],
        BeforeValidator(_number_or_alias),
    ]


class AliasList(BaseModel):
    object: Literal["list"] = "list"
    data: list[AliasDescription]


class AliasDeleted(BaseModel):
    """id: `name:alias`, which means nothing from now on."""

    id: str
    deleted: Literal[True] = True


def aliases_router(registry: RegistryAccess) -> APIRouter:
    router = APIRouter(prefix="/admin/registry/models/{name}/aliases", tags=["registry"], route_class=SmallJsonRoute)

    @router.get("", responses=documented(404, 500, 503), summary="List the aliases of a model")
    @requires(AccessScope.READ, changes_state=False)
    async def list_aliases(name: str) -> AliasList:
        await registry.refresh()
        return AliasList(data=[describe_alias(alias) for alias in registry.snapshot.model(as_registered(name)).aliases])

    @router.get("/{alias}", responses=documented(404, 500, 503), summary="Show which version an alias points to")
    @requires(AccessScope.READ, changes_state=False)
    async def show(name: str, alias: str) -> AliasDescription:
        await registry.refresh()
        return describe_alias(alias_named(registry.snapshot.model(as_registered(name)), alias))

    @router.put("/{alias}", responses=documented(400, 404, 409, 500, 503, 507), summary="Point an alias to a version")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def point(name: str, alias: NewAlias, body: AliasRequest) -> AliasDescription:
        """`live` is what the bare name means. When it moves, `previous` points to where it was: to roll back, point `live` to
        `previous`. Requests that run finish on the version that they began with; the next ones get the new one.
        """
        label = version_label(name, str(body.version))

        def change(registry: Registry) -> Alias:
            return registry.set_alias(label.name, alias, registry.snapshot().version_of(label).number)

        return describe_alias(await registry.write(change))

    @router.delete("/{alias}", responses=documented(404, 409, 500, 503, 507), summary="Remove an alias")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def remove(name: str, alias: str) -> AliasDeleted:
        """The version stays. `live` cannot be removed."""
        model = as_registered(name)
        gone = await registry.write(lambda registry: registry.remove_alias(model, alias))
        return AliasDeleted(id=f"{gone.model}:{gone.name}")

    return router
