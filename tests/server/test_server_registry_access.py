"""The registry beside an event loop: busy writers hold up nobody, and what other processes write is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from filelock import FileLock

from model_registry.artifacts import StagedVariant
from model_registry.database import Database
from model_registry.errors import ModelNotFound, RegistryBusy, RegistryError
from model_registry.records import Manifest, Precision
from model_registry.registry import Registry, open_registry
from model_registry.snapshot import Snapshot
from server.app import create_app
from server.inference import adapters
from server.settings.daemon import Settings
from server.storage.snapshots import RegistryAccess
from server.storage.storage import Storage
from server.storage.threads import LOCK_WAIT_S
from tests.doubles.live_server import call_app, error_of
from tests.doubles.waiting import until

PATIENCE_S = 30  # guards against a hang
ADAPTERS = "/admin/models/tiny/adapters"


def publish(home: Path, name: str) -> None:
    with open_registry(home) as registry, registry.staging() as folder:
        (folder / "weights").write_text(f"{name} {len(registry.models())}")
        registry.publish(name, Manifest("test", "test", "llama", 16), [StagedVariant(Precision.FP32, "cpu", folder)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Holds the model `tiny`."""
    publish(tmp_path / "home", "tiny")
    return tmp_path / "home"


@pytest.fixture
def storage(home: Path) -> Iterator[Storage]:
    with closing(Storage(Database(home, lock_timeout_s=LOCK_WAIT_S))) as storage:
        yield storage


@pytest.fixture
def access(storage: Storage) -> RegistryAccess:
    return storage.registry


def settings_of(home: Path) -> Settings:
    return Settings(home=home, port=0, model="tiny", engine="onnx")


def test_while_another_process_writes_others_are_answered_and_the_writer_is_refused_with_a_retry_after(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "LOCK_WAIT_S", 0.3)
    app = create_app(settings_of(home))

    async def run() -> tuple[list[httpx.Response], int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000") as client:
            posts = [asyncio.create_task(client.post(ADAPTERS, json={"name": f"a{i}", "adapter": "tiny"})) for i in range(3)]
            num_answered = 0
            while not all(post.done() for post in posts):
                await asyncio.sleep(0)
                assert (await client.get("/health")).status_code == 200
                assert (await client.get("/v1/models/tiny")).status_code == 200
                num_answered += 1
            return [post.result() for post in posts], num_answered

    with FileLock(home / "locks/registry.lock"):
        responses, num_answered = asyncio.run(run())
    assert num_answered > 1
    for response in responses:
        assert error_of(response, 503)["code"] == "registry_busy"
        assert response.headers["Retry-After"] == "2"
    app.state.parts.storage.close()


def test_what_another_process_has_just_pulled_is_found_at_once(home: Path) -> None:
    app = create_app(settings_of(home))
    assert error_of(call_app(app, "GET", "/v1/models/other"), 404)["code"] == "model_not_found"
    publish(home, "other")
    assert call_app(app, "GET", "/v1/models/other").status_code == 200
    assert error_of(call_app(app, "GET", "/admin/models/third/adapters"), 404)
    publish(home, "third")
    assert call_app(app, "GET", "/admin/models/third/adapters").json()["data"] == []
    publish(home, "fourth")
    assert {model["id"] for model in call_app(app, "GET", "/v1/models").json()["data"]} == {"tiny", "other", "third", "fourth"}
    app.state.parts.storage.close()


def test_what_another_process_changes_is_followed(home: Path, storage: Storage, access: RegistryAccess) -> None:
    storage.start()
    with open_registry(home) as other:
        other.set_alias("tiny", "mine", 1)
    until(lambda: "mine" in {alias.name for alias in access.snapshot.model("tiny").aliases})
    with open_registry(home) as other:
        other.remove("tiny")
    until(lambda: not access.snapshot.models)


def test_a_write_is_in_the_snapshot_when_it_returns(access: RegistryAccess) -> None:
    asyncio.run(access.write(lambda registry: registry.set_alias("tiny", "mine", 1)))
    assert access.snapshot.resolve("tiny:mine").number == 1


def test_a_write_whose_time_is_over_tries_once(home: Path, access: RegistryAccess) -> None:
    def detach(registry: Registry) -> None:
        registry.detach("tiny", "none")

    with pytest.raises(ModelNotFound):
        asyncio.run(access.write(detach, deadline_s=0.0))
    with FileLock(home / "locks/registry.lock"), pytest.raises(RegistryBusy):
        asyncio.run(access.write(detach, deadline_s=0.0))


def test_a_database_that_cannot_be_read_leaves_what_was_there(
    storage: Storage, access: RegistryAccess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def broken(self: Registry) -> Snapshot:
        tries.append(1)
        raise RegistryError("It cannot be read.")

    monkeypatch.setattr(Registry, "snapshot", broken)
    storage.start()
    until(lambda: len(tries) > 2)
    assert access.snapshot.resolve("tiny").number == 1
    said = [record.message for record in caplog.records if record.name == "slmops.database"]
    assert said == ["the registry cannot be read; serving what was there"]
    with pytest.raises(RegistryError):
        asyncio.run(access.refresh())


@pytest.mark.parametrize(("patience_s", "num_attempts"), [(60.0, 3), (0.0, 1)])
def test_what_was_registered_in_vain_is_undone_in_attempts(
    monkeypatch: pytest.MonkeyPatch, patience_s: float, num_attempts: int
) -> None:
    monkeypatch.setattr(adapters, "UNDO_WAIT_S", patience_s)
    attempts: list[str] = []

    async def detach(model: str, name: str) -> None:
        attempts.append(f"{model}:{name}")
        if len(attempts) < 3:
            raise RegistryBusy("Another process writes.")

    models: Any = SimpleNamespace(detach=detach)
    control: Any = None
    asyncio.run(adapters.Adapters(models, control)._undo("tiny", "one"))
    assert attempts == ["tiny:one"] * num_attempts
