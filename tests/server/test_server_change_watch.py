"""What the gateway holds in memory of its database follows other processes, whatever becomes of the database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from model_registry.database import Database
from model_registry.errors import RegistryError
from model_registry.keys import ApiKey, KeyStore
from server.storage.storage import Storage
from server.storage.threads import ChangeWatch, Renewal
from tests.doubles.waiting import until

PATIENCE_S = 30  # guards against a hang


@pytest.fixture
def other(tmp_path: Path) -> Iterator[KeyStore]:
    """Of another process."""
    with Database(tmp_path) as database:
        yield KeyStore(database)


def test_keys_that_another_process_changes_are_seen_without_a_restart(tmp_path: Path, other: KeyStore) -> None:
    with closing(Storage(Database(tmp_path), serves_models=False)) as storage:
        storage.start()
        made = other.create("app", ["read"])
        until(lambda: storage.keys.known() == (made.key,))
        other.revoke("app")
        until(lambda: storage.keys.known()[0].revoked_at is not None)


def test_keys_that_cannot_be_read_hold_and_the_log_says_so_once(
    tmp_path: Path, other: KeyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = other.create("app", ["read"])
    looks: list[int] = []

    def failing(store: KeyStore) -> tuple[ApiKey, ...]:
        looks.append(1)
        raise RegistryError("The registry database cannot be used.")

    with closing(Storage(Database(tmp_path), serves_models=False)) as storage:
        monkeypatch.setattr(KeyStore, "all_keys", failing)
        storage.start()
        until(lambda: len(looks) > 3)
        assert storage.keys.known() == (made.key,)
    said = [record.getMessage() for record in caplog.records if record.name == "slmops.database"]  # Alembic has lines of its own
    assert said == ["API keys cannot be read; those known before hold"]


def test_a_failure_after_a_recovery_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    runs: list[int] = []

    def renew() -> None:
        runs.append(1)
        if len(runs) in (1, 2, 4):
            raise OSError("The disk is gone.")

    with closing(ChangeWatch(Renewal(renew, "nothing can be read"))) as watch:
        watch.start()
        while len(runs) < 5:
            watch.look_soon()
            time.sleep(0.001)
    assert len(caplog.records) == 2
