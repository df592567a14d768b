"""Keys of the registry: secrets that nobody can read again, and a list that sees what anybody changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from model_registry.database import Database
from model_registry.keys import InvalidKeyName, KeyNameTaken, KeyNotFound, KeyStore

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path) as database:
        yield database


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database)


def test_a_home_without_a_database_has_no_keys_and_gets_none(store: KeyStore, tmp_path: Path) -> None:
    assert store.all_keys() == ()
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_random_and_kept_as_its_hash_alone(store: KeyStore, database: Database, tmp_path: Path) -> None:
    one, two = store.create("one", ["inference"]), store.create("two", ["inference"])
    assert re.fullmatch(r"slm_[A-Za-z0-9_-]{43}", one.secret), "256 bits in base64"
    assert one.secret != two.secret
    assert one.key.digest == hashlib.sha256(one.secret.encode()).digest()
    database.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or one.secret.encode() not in path.read_bytes()


def test_what_was_created_is_listed_the_oldest_first(store: KeyStore) -> None:
    expires = NOW + timedelta(days=90)
    store.create("app", ["inference", "jobs", "inference"], expires)
    store.create("ops", ["admin"])
    app, ops = store.all_keys()
    assert (app.name, app.scopes, app.expires_at, app.revoked_at) == ("app", ("inference", "jobs"), expires, None)
    assert (ops.name, ops.scopes, ops.expires_at) == ("ops", ("admin",), None)
    assert app.created_at <= ops.created_at
    assert app.created_at.tzinfo is UTC


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "a/b", "ä", "a\n"])
def test_names_are_plain(store: KeyStore, name: str) -> None:
    with pytest.raises(InvalidKeyName, match="cannot be used"):
        store.create(name, ["read"])


def test_a_name_is_free_again_once_its_key_is_revoked(store: KeyStore) -> None:
    first = store.create("app", ["read"]).key
    with pytest.raises(KeyNameTaken, match="'app'"):
        store.create("app", ["read"])
    store.revoke("app")
    second = store.create("app", ["read"]).key
    assert [key.id for key in store.all_keys() if key.revoked_at is None] == [second.id]
    assert store.revoke("app").id == second.id
    assert {key.id for key in store.all_keys()} == {first.id, second.id}


def test_revoking_twice_keeps_the_first_time(store: KeyStore) -> None:
    key = store.create("app", ["read"]).key
    first = store.revoke(key.id)
    assert first.revoked_at is not None
    assert store.revoke(key.id) == first


def test_a_removed_key_is_gone(store: KeyStore) -> None:
    key = store.create("app", ["read"]).key
    assert store.remove("app") == key
    assert store.all_keys() == ()


@pytest.mark.parametrize("verb", ["revoke", "remove"])
def test_an_unknown_key_is_reported(store: KeyStore, verb: str) -> None:
    with pytest.raises(KeyNotFound, match="slmops keys list"):
        getattr(store, verb)("nobody")


def test_another_process_sees_what_changed(store: KeyStore, tmp_path: Path) -> None:
    with Database(tmp_path) as elsewhere:
        other = KeyStore(elsewhere)
        assert other.all_keys() == ()
        key = store.create("app", ["read"]).key
        assert other.all_keys() == (key,)
        assert other.all_keys() is other.all_keys(), "nothing is read again while nothing changes"
        revoked = store.revoke("app")
        assert other.all_keys() == (revoked,)


def test_a_key_is_usable_until_it_expires_or_is_revoked(store: KeyStore) -> None:
    key = store.create("app", ["read"], NOW + timedelta(hours=1)).key
    assert key.is_usable(NOW)
    assert not key.is_usable(NOW + timedelta(hours=1))
    store.create("other", ["read"])
    assert not store.revoke("other").is_usable(NOW)
