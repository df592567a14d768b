"""API keys: rows of the registry's database. A secret is returned once, when its key is created; only its hash is kept.

Knows no HTTP, and not what a scope allows.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import RowMapping, insert, select, update

from model_registry.database import Database
from model_registry.errors import RegistryError
from model_registry.schema import Subject, api_keys, from_column, to_column

PREFIX = "slm_"  # of secrets, so that scanners of repositories and logs can recognise them
_SECRET_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeyNotFound(RegistryError):
    """No key has this id or name."""


class KeyNameTaken(RegistryError):
    """A key that is not revoked has this name."""


class InvalidKeyName(RegistryError):
    """The name has other characters than allowed, or is too long."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """id: `key-` and hexadecimal digits. digest: SHA-256 of the secret. Times are UTC; expires_at: None for never."""

    id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_usable(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its secret, which cannot be read again."""

    key: ApiKey
    secret: str


def digest_of(secret: bytes) -> bytes:
    """SHA-256 suffices, for a secret has 256 random bits: there is nothing to guess that a slow hash would protect."""
    return hashlib.sha256(secret).digest()


class KeyStore:
    """The keys of a home. Thread safe. Writes wait for other writers as long as the database says, then RegistryBusy."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._snapshot: tuple[int, tuple[ApiKey, ...]] | None = None

    def all_keys(self) -> tuple[ApiKey, ...]:
        """All, the oldest first, expired and revoked ones too; none while there is no database. Cheap when nothing changed."""
        if not self._database.exists():
            return ()
        with self._database.reading() as reader:
            count = self._database.change_count(reader, Subject.KEYS)
            if self._snapshot is None or self._snapshot[0] != count:
                query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
                self._snapshot = count, tuple(_key(row) for row in reader.execute(query).mappings())
            return self._snapshot[1]

    def create(self, name: str, scopes: Iterable[str], expires_at: datetime | None = None) -> NewKey:
        """scopes: at least one. Raises InvalidKeyName, KeyNameTaken."""
        if not _NAME.fullmatch(name):
            raise InvalidKeyName(
                f"The name {name[:80]!r} cannot be used: take 1 to 64 letters, digits, dots, dashes and underscores, "
                "a letter or digit first."
            )
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        id_ = f"key-{secrets.token_hex(6)}"
        key = ApiKey(id_, name, digest_of(secret.encode()), tuple(dict.fromkeys(scopes)), datetime.now(UTC), expires_at)
        same_name = select(api_keys.c.id).where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None))
        with self._database.writing(Subject.KEYS) as connection:
            if connection.execute(same_name).first() is not None:
                raise KeyNameTaken(f"There is a key named {name!r}. Choose another name, or revoke that key first.")
            connection.execute(insert(api_keys), [_row(key)])
        return NewKey(key, secret)

    def revoke(self, id_or_name: str) -> ApiKey:
        """Revokes a key; of several with one name, the one that is not revoked yet. Revoking twice changes nothing.

        Raises KeyNotFound.
        """
        key = self._find(id_or_name)
        if key.revoked_at is None:
            revoked = update(api_keys).where(api_keys.c.id == key.id).values(revoked_at=to_column(datetime.now(UTC)))
            with self._database.writing(Subject.KEYS) as connection:
                connection.execute(revoked)
        return self._find(key.id)

    def remove(self, id_or_name: str) -> ApiKey:
        """Forgets a key. Raises KeyNotFound."""
        key = self._find(id_or_name)
        with self._database.writing(Subject.KEYS) as connection:
            connection.execute(api_keys.delete().where(api_keys.c.id == key.id))
        return key

    def _find(self, id_or_name: str) -> ApiKey:
        known = self.all_keys()
        named = [key for key in known if key.name == id_or_name]
        found = next((key for key in known if key.id == id_or_name), None)
        found = found or next((key for key in named if key.revoked_at is None), named[-1] if named else None)
        if found is None:
            raise KeyNotFound(f"There is no key {id_or_name[:80]!r} here. `slmops keys list` shows all.")
        return found


def _row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "digest": key.digest.hex(),
        "scopes": list(key.scopes),
        "created_at": to_column(key.created_at),
        "expires_at": to_column(key.expires_at),
        "revoked_at": to_column(key.revoked_at),
    }


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        digest=bytes.fromhex(row["digest"]),
        scopes=tuple(row["scopes"]),
        created_at=from_column(row["created_at"]),
        expires_at=from_column(row["expires_at"]),
        revoked_at=from_column(row["revoked_at"]),
    )
