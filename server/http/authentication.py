"""Who makes a request: its secret, compared with the keys that are known, becomes a principal or the reason why not.

`identify` decides, from values. Knows no headers; where the keys come from is `ApiKeys`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from model_registry.keys import ApiKey, digest_of
from server.principal import LOCAL, AccessScope, Principal

SETTING = Principal("api_key", "api_key", frozenset({AccessScope.ADMIN}))
"""Who sends the key of the setting api_key."""


class Rejection(StrEnum):
    """Why a request has no principal."""

    MISSING = "missing"  # no key was sent
    UNKNOWN = "unknown"  # none of the keys
    EXPIRED = "expired"  # its time is over
    REVOKED = "revoked"  # an admin ended it


@dataclass(frozen=True, slots=True)
class KnownKeys:
    """setting: digest of the setting api_key. stored: the registry's keys, in any state. is_local: only this machine connects."""

    setting: bytes | None
    stored: tuple[ApiKey, ...]
    is_local: bool

    @property
    def are_needed(self) -> bool:
        """Whether requests need a key. A key that expired or was revoked must not open the daemon, so it counts too."""
        return self.setting is not None or bool(self.stored) or not self.is_local


def identify(secret: bytes | None, known: KnownKeys, now: datetime) -> Principal | Rejection:
    """A stored key has the scopes that it was given, also when the setting api_key holds the same secret."""
    if not known.are_needed:
        return LOCAL
    if not secret:
        return Rejection.MISSING
    digest = digest_of(secret)
    key = _match(digest, known.stored)
    if key is not None:
        return _principal(key, now)
    if known.setting is not None and hmac.compare_digest(digest, known.setting):
        return SETTING
    return Rejection.UNKNOWN


def _match(digest: bytes, stored: tuple[ApiKey, ...]) -> ApiKey | None:
    """Compares with every key, each in constant time, so that timing does not reveal which one matches."""
    matching = [key for key in stored if hmac.compare_digest(digest, key.digest)]
    return matching[0] if matching else None


def _principal(key: ApiKey, now: datetime) -> Principal | Rejection:
    if key.revoked_at is not None:
        return Rejection.REVOKED
    if not key.is_usable(now):
        return Rejection.EXPIRED
    known = {scope.value for scope in AccessScope}
    return Principal(key.id, key.name, frozenset(AccessScope(scope) for scope in key.scopes if scope in known))


class Authenticator:
    """api_key: the setting. stored: gives the registry's keys as they are now; called for each request."""

    def __init__(
        self,
        api_key: str | None,
        stored: Callable[[], tuple[ApiKey, ...]],
        *,
        is_local: bool,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._setting = digest_of(api_key.encode()) if api_key is not None else None
        self._stored = stored
        self._is_local = is_local
        self._now = now

    @property
    def needs_key(self) -> bool:
        return self._known().are_needed

    def identify(self, secret: bytes | None) -> Principal | Rejection:
        """secret: as it was sent, None when none was."""
        return identify(secret, self._known(), self._now())

    def _known(self) -> KnownKeys:
        return KnownKeys(self._setting, self._stored(), self._is_local)
