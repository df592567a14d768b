"""Which secret makes which principal, and which words a rejection has: pure decisions, on values."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from model_registry.keys import ApiKey, digest_of
from server.http.authentication import SETTING, Authenticator, KnownKeys, Rejection, identify
from server.principal import ANONYMOUS, LOCAL, AccessScope, Principal

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 30, tzinfo=UTC)
ADMIN_SECRET = b"the operator's own"


def key(secret: bytes = b"slm_one", **changes: Any) -> ApiKey:
    fields = {"id": "key-1", "name": "app", "digest": digest_of(secret), "scopes": ("inference",), "created_at": NOW}
    return ApiKey(**fields | changes)


def known(*stored: ApiKey, setting: bytes | None = None, is_local: bool = True) -> KnownKeys:
    return KnownKeys(None if setting is None else digest_of(setting), stored, is_local)


@pytest.mark.parametrize("secret", [None, b"", b"unused", b"slm_one"])
def test_without_keys_everybody_on_loopback_is_local(secret: bytes | None) -> None:
    assert identify(secret, known(), NOW) is LOCAL


def test_beyond_loopback_nobody_is_local() -> None:
    assert identify(None, known(is_local=False), NOW) is Rejection.MISSING
    assert identify(b"any", known(is_local=False), NOW) is Rejection.UNKNOWN


@pytest.mark.parametrize(
    "keys",
    [
        known(key()),
        known(key(revoked_at=NOW)),
        known(key(expires_at=NOW - timedelta(days=1))),
        known(setting=ADMIN_SECRET),
    ],
)
def test_any_key_locks_the_door_whatever_became_of_it(keys: KnownKeys) -> None:
    assert keys.are_needed
    for secret in (None, b""):
        assert identify(secret, keys, NOW) is Rejection.MISSING
    assert identify(b"slm_other", keys, NOW) is Rejection.UNKNOWN


def test_a_stored_key_is_a_principal_with_its_scopes() -> None:
    found = identify(b"slm_one", known(key(scopes=("inference", "jobs"))), NOW)
    assert found == Principal("key-1", "app", frozenset({AccessScope.INFERENCE, AccessScope.JOBS}))


def test_a_scope_of_a_newer_release_gives_nothing() -> None:
    found = identify(b"slm_one", known(key(scopes=("read", "telepathy"))), NOW)
    assert isinstance(found, Principal)
    assert found.scopes == {AccessScope.READ}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"expires_at": NOW}, Rejection.EXPIRED),
        ({"expires_at": NOW + timedelta(seconds=1)}, None),
        ({"revoked_at": NOW}, Rejection.REVOKED),
        ({"revoked_at": NOW, "expires_at": NOW}, Rejection.REVOKED),
    ],
)
def test_a_key_ends(changes: dict[str, Any], why: Rejection | None) -> None:
    found = identify(b"slm_one", known(key(**changes)), NOW)
    assert found is why or (why is None and isinstance(found, Principal))


def test_the_setting_is_an_admin() -> None:
    keys = known(key(), setting=ADMIN_SECRET)
    assert identify(ADMIN_SECRET, keys, NOW) is SETTING
    assert all(SETTING.allows(scope) for scope in AccessScope)


def test_a_stored_key_in_the_setting_keeps_its_scopes_and_its_end() -> None:
    """Commands send SLMOPS_API_KEY; a daemon that is started with the same variable must not make an admin of it."""
    found = identify(b"slm_one", known(key(), setting=b"slm_one"), NOW)
    assert isinstance(found, Principal)
    assert not found.allows(AccessScope.ADMIN)
    assert identify(b"slm_one", known(key(revoked_at=NOW), setting=b"slm_one"), NOW) is Rejection.REVOKED


def test_secrets_are_compared_in_constant_time_with_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    original = hmac.compare_digest

    def counting(one: bytes, two: bytes) -> bool:
        compared.append((len(one), len(two)))
        return original(one, two)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    keys = [key(f"slm_{n}".encode(), id=f"key-{n}") for n in range(5)]
    for secret in (b"slm_0", b"slm_4", b"none"):
        compared.clear()
        identify(secret, known(*keys), NOW)
        assert compared == [(32, 32)] * 5, "digests, all of one length, and no early end"


def test_what_an_admin_is_and_what_nobody_is() -> None:
    assert LOCAL.only_own is SETTING.only_own is None
    assert Principal("key-1", "app", frozenset({AccessScope.JOBS})).only_own == "key-1"
    assert not any(ANONYMOUS.allows(scope) for scope in AccessScope)


def test_the_authenticator_reads_the_keys_and_the_time_of_each_request() -> None:
    stored: tuple[ApiKey, ...] = ()
    now = NOW
    authenticator = Authenticator(None, lambda: stored, is_local=True, now=lambda: now)
    assert (authenticator.identify(None), authenticator.needs_key) == (LOCAL, False)
    stored = (key(expires_at=NOW + timedelta(hours=1)),)
    assert authenticator.needs_key
    assert isinstance(authenticator.identify(b"slm_one"), Principal)
    now = NOW + timedelta(hours=1)
    assert authenticator.identify(b"slm_one") is Rejection.EXPIRED
