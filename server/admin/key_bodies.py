"""API keys as JSON: what is requested, and what is answered.

Times are Unix seconds. Only the answer that creates a key has its secret.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_registry.keys import ApiKey, NewKey
from server.principal import AccessScope
from server.settings.units import Span


class KeyRequest(BaseModel):
    """expires_in: seconds, or a duration such as "90d"; null: never."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    scopes: Annotated[list[AccessScope], Field(min_length=1, max_length=16)]
    expires_in: Span | None = None


class KeyBody(BaseModel):
    """status: whether it opens anything now. expires_at: null for never; revoked_at: null unless it was revoked."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    scopes: list[str]
    status: Literal["usable", "expired", "revoked"]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


class NewKeyBody(KeyBody):
    """secret: what clients send; it is in this answer and never shown again."""

    secret: str


class KeyList(BaseModel):
    """The oldest first."""

    object: Literal["list"] = "list"
    data: list[KeyBody]


def key_body(key: ApiKey, now: datetime | None = None) -> KeyBody:
    is_usable = key.is_usable(now or datetime.now(UTC))
    return KeyBody(
        id=key.id,
        name=key.name,
        scopes=list(key.scopes),
        status="revoked" if key.revoked_at else "usable" if is_usable else "expired",
        created_at=key.created_at.timestamp(),
        expires_at=_seconds(key.expires_at),
        revoked_at=_seconds(key.revoked_at),
    )


def new_key_body(new: NewKey) -> NewKeyBody:
    return NewKeyBody(**key_body(new.key).model_dump(), secret=new.secret)


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
