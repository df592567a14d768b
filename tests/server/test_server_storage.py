"""What the gateway keeps in its home: one database for all of its stores, and nothing is lost or left open at the end."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_registry.database import Database
from model_registry.errors import NotWritable
from model_registry.keys import KeyStore
from server.app import create_app
from server.settings.daemon import Settings
from server.storage.storage import Storage
from tests.doubles.live_server import LiveServer, call_app, error_of

FILE = {"file": ("a.jsonl", b"{}"), "purpose": (None, "fine-tune")}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Database]:
    """Every database that was built in this process."""
    found: list[Database] = []
    init = Database.__init__

    def noted(self: Database, *args: Any, **named: Any) -> None:
        found.append(self)
        init(self, *args, **named)

    monkeypatch.setattr(Database, "__init__", noted)
    return found


def test_one_database_serves_models_files_jobs_keys_and_evaluations(tmp_path: Path, built: list[Database]) -> None:
    with LiveServer(Settings(engine="fake", home=tmp_path, port=0)) as server:
        with httpx.Client(base_url=server.url, timeout=30) as http:
            file = http.post("/v1/files", files=FILE).json()["id"]
            assert [each["id"] for each in http.get("/v1/files").json()["data"]] == [file]
            assert http.get("/admin/jobs").json()["data"] == []
            assert http.get("/admin/models/smollm2-135m/evaluations").json()["data"] == []
            assert http.delete(f"/v1/files/{file}").status_code == 200
            assert http.post("/admin/keys", json={"name": "app", "scopes": ["admin"]}).status_code == 201
        assert len(built) == 1
        assert built == [server.parts.storage.database]
    assert built[0]._opened is None, "the end closes it"


def test_the_fake_engine_needs_no_home(tmp_path: Path) -> None:
    (tmp_path / "home").touch()  # nothing can be made there
    app = create_app(Settings(engine="fake", home=tmp_path / "home", port=0))
    assert call_app(app, "GET", "/v1/models").status_code == 200
    assert call_app(app, "GET", "/admin/keys").json() == {"object": "list", "data": []}
    error_of(call_app(app, "POST", "/admin/keys", json={"name": "app", "scopes": ["admin"]}), 507)
    app.state.parts.storage.close()


def test_models_need_a_home(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(NotWritable):
        Storage(Database(tmp_path / "home"))


def test_a_locked_database_is_503_for_who_creates_a_key(tmp_path: Path) -> None:
    database = Database(tmp_path, lock_timeout_s=0.1)
    database.open()
    app = create_app(Settings(engine="fake", home=tmp_path, port=0), database=database)
    with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert call_app(app, "GET", "/admin/keys").status_code == 200, "who reads waits for no writer"
        response = call_app(app, "POST", "/admin/keys", json={"name": "app", "scopes": ["admin"]})
    assert error_of(response, 503)["code"] == "registry_busy"
    assert response.headers["Retry-After"] == "2"
    app.state.parts.storage.close()


def test_the_end_waits_for_writes_in_progress(tmp_path: Path) -> None:
    storage, gate = Storage(Database(tmp_path), serves_models=False), threading.Event()
    storage.writes.submit(gate.wait, 30)
    made = storage.writes.submit(KeyStore(storage.database).create, "app", ["read"])
    closing_ = threading.Thread(target=storage.close)
    closing_.start()
    gate.set()
    closing_.join(30)
    assert not closing_.is_alive()
    with Database(tmp_path) as again:
        assert KeyStore(again).all_keys() == (made.result().key,)
