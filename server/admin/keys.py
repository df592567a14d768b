"""`/admin/keys`: API keys, created, listed and revoked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fastapi import APIRouter
from starlette.responses import Response

from server.admin.key_bodies import KeyBody, KeyList, KeyRequest, NewKeyBody, key_body, new_key_body
from server.dialects.openai.wire.errors import documented
from server.http.access import requires
from server.http.json_route import JsonRoute
from server.principal import AccessScope
from server.storage.snapshots import ApiKeys


def keys_router(keys: ApiKeys) -> APIRouter:
    router = APIRouter(prefix="/admin/keys", tags=["admin"], route_class=JsonRoute)

    @router.post("", status_code=201, responses=documented(400, 409, 500), summary="Create an API key")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def create(requested: KeyRequest, response: Response) -> NewKeyBody:
        """Creates a key. Its secret is in this answer only. From the first key on, every request but the probes needs one."""
        response.headers["Cache-Control"] = "no-store"
        expires_in_s = requested.expires_in
        expires_at = None if expires_in_s is None else datetime.now(UTC) + timedelta(seconds=expires_in_s)
        return new_key_body(await keys.create(requested.name, requested.scopes, expires_at))

    @router.get("", responses=documented(500), summary="List the API keys")
    @requires(AccessScope.ADMIN, changes_state=False)
    async def list_keys() -> KeyList:
        """All keys without their secrets, which are not stored; expired and revoked ones too."""
        return KeyList(data=[key_body(key) for key in keys.known()])

    @router.delete("/{id}", responses=documented(404, 500), summary="Revoke an API key")
    @requires(AccessScope.ADMIN, changes_state=True)
    async def revoke(id: str) -> KeyBody:
        """Revokes a key by id or name. It is invalid from the next request on, and stays in the list."""
        return key_body(await keys.revoke(id))

    return router
