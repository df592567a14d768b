"""`/admin/registry` over a home with models that nothing loads: lists, versions, aliases, removal, verification, collection."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from model_registry.artifacts import StagedVariant
from model_registry.description import describe_model, describe_version
from model_registry.records import Manifest, ModelVersion, Precision
from model_registry.registry import Registry, open_registry
from model_registry.verification import Problem
from runtime.pool.loaded_model import LoadSpec
from server.admin.registry import versions
from server.app import create_app
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, call_app, error_of
from tests.doubles.waiting import PATIENCE_S

REGISTRY = "/admin/registry"
MODELS = f"{REGISTRY}/models"
Send = Callable[..., httpx.Response]


def publish(registry: Registry, name: str, text: str, **manifest: Any) -> None:
    with registry.staging() as folder:
        (folder / "weights").write_text(text)
        (folder / "shared").write_text("the same in every version")
        made = Manifest("test", "test", "llama", 16, metrics={"loss": float("nan")}, **manifest)
        registry.publish(name, made, [StagedVariant(Precision.FP32, "cpu", folder)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Holds tiny:1 to tiny:3, of which the third is live, and other:1."""
    with open_registry(tmp_path / "home") as registry:
        for number in (1, 2, 3):
            publish(registry, "tiny", f"weights {number}")
            registry.set_alias("tiny", "live", number)
        publish(registry, "other", "other weights", parent="tiny:3")
    return tmp_path / "home"


@pytest.fixture
def app(home: Path) -> Iterator[FastAPI]:
    app = create_app(Settings(engine="fake", home=home, port=0))
    yield app
    app.state.parts.storage.close()


@pytest.fixture
def send(app: FastAPI) -> Send:
    return lambda method, path="", **more: call_app(app, method, f"{MODELS}{path}", **more)


def numbers(send: Send) -> dict[str, int]:
    aliases: dict[str, int] = send("GET", "/tiny").json()["aliases"]
    return aliases


# ---- read ----


def test_the_overview_names_the_home_and_what_is_in_it(app: FastAPI, home: Path) -> None:
    body = call_app(app, "GET", REGISTRY).json()
    assert body.pop("free_bytes") > 0
    shared, own = len("the same in every version"), 3 * len("weights 1") + len("other weights")
    assert body == {"home": str(home), "why_read_only": None, "num_models": 2, "num_versions": 4, "size_bytes": shared + own}


def test_bodies_are_those_of_the_command_line(send: Send, home: Path) -> None:
    with open_registry(home) as registry:
        models = [json.loads(json.dumps(describe_model(model))) for model in registry.models()]
        version = json.loads(json.dumps(describe_version(registry.resolve("tiny"))))
    assert send("GET").json() == {"object": "list", "data": models}
    assert send("GET", "/tiny").json() == models[1]
    assert send("GET", "/tiny/versions").json()["data"] == models[1]["versions"]
    assert [send("GET", f"/tiny/versions/{each}").json() for each in ("3", "live")] == [version, version]
    assert version["metrics"] == {"loss": None}


def test_what_another_process_writes_is_seen_at_once(send: Send, home: Path) -> None:
    with open_registry(home) as registry:
        registry.remove("other")
    assert [model["name"] for model in send("GET").json()["data"]] == ["tiny"]


@pytest.mark.parametrize(
    "path",
    [
        *("/nobody", "/TINY", "/tiny:3", "/nobody/aliases", "/nobody/versions", "/tiny/aliases/nothing"),
        *("/tiny/versions/9", "/tiny/versions/99999999999", "/tiny/versions/nothing", "/tiny/versions/%F0%9F%92%A9"),
        *("/%2e%2e", "/..%00", "/m%C3%B6del", f"/{'x' * 5000}"),
    ],
)
def test_unknown_names_are_not_found(send: Send, path: str) -> None:
    assert error_of(send("GET", path), 404)["code"] in ("model_not_found", "unknown_url")


def test_another_case_is_only_suggested(send: Send) -> None:
    assert "Did you mean tiny?" in error_of(send("GET", "/TINY"), 404)["message"]


def test_a_home_without_a_registry_is_empty_and_stays_so(tmp_path: Path) -> None:
    app = create_app(Settings(engine="fake", home=tmp_path / "none", port=0))
    assert call_app(app, "GET", MODELS).json()["data"] == []
    assert call_app(app, "GET", REGISTRY).json()["num_models"] == 0
    assert not (tmp_path / "none").exists()


def test_the_catalogue_says_what_is_installed(app: FastAPI, home: Path) -> None:
    with open_registry(home) as registry:
        publish(registry, "qwen3-0.6b", "installed")
    entries = {entry["name"]: entry for entry in call_app(app, "GET", f"{REGISTRY}/catalog").json()["data"]}
    assert entries["qwen3-0.6b"]["installed"]
    assert not entries["smollm2-135m"]["installed"]
    assert entries["smollm2-135m"]["memory_bytes"] > entries["smollm2-135m"]["builds"][0]["download_bytes"]


def test_lineage_is_the_whole_tree(send: Send) -> None:
    tree = send("GET", "/other/versions/live/lineage").json()
    assert (tree["label"], tree["asked"], [child["label"] for child in tree["children"]]) == ("tiny:3", False, ["other:1"])


# ---- aliases ----


def test_an_alias_is_made_moved_and_removed(send: Send) -> None:
    made = send("PUT", "/tiny/aliases/stable", json={"version": 1})
    assert (made.status_code, made.json()) == (200, {"model": "tiny", "alias": "stable", "version": 1, "weight": 1.0})
    assert send("PUT", "/tiny/aliases/stable", json={"version": "live"}).json()["version"] == 3
    assert send("GET", "/tiny/aliases/stable").json()["version"] == 3
    assert {each["alias"] for each in send("GET", "/tiny/aliases").json()["data"]} == {"live", "previous", "stable"}
    assert send("DELETE", "/tiny/aliases/stable").json() == {"id": "tiny:stable", "deleted": True}
    error_of(send("DELETE", "/tiny/aliases/stable"), 404)


def test_live_is_rolled_back_by_previous(send: Send) -> None:
    assert send("PUT", "/tiny/aliases/live", json={"version": "previous"}).json()["version"] == 2
    assert numbers(send) == {"live": 2, "previous": 3}


def test_live_stays(send: Send) -> None:
    assert error_of(send("DELETE", "/tiny/aliases/live"), 409)["code"] == "model_in_use"


@pytest.mark.parametrize(
    ("alias", "body", "status", "param"),
    [
        ("live", {"version": 9}, 404, "model"),
        ("live", {"version": "nothing"}, 404, "model"),
        ("live", {"version": "../3"}, 404, "model"),
        ("live", {"version": 0}, 400, "version"),
        ("live", {"version": True}, 400, "version"),
        ("live", {"versions": 1}, 400, "version"),
        ("live", {"version": 1, "weigth": 1}, 400, "weigth"),
        ("live", {}, 400, "version"),
        ("live", [], 400, "body"),
        ("Live", {"version": 1}, 400, "alias"),
        ("1", {"version": 1}, 400, "alias"),
        ("ä", {"version": 1}, 400, "alias"),
        ("x" * 97, {"version": 1}, 400, "alias"),
    ],
)
def test_a_bad_alias_is_refused_by_name(send: Send, alias: str, body: Any, status: int, param: str) -> None:
    assert error_of(send("PUT", f"/tiny/aliases/{alias}", json=body), status)["param"] == param
    assert numbers(send) == {"live": 3, "previous": 2}


def test_fifty_moves_at_a_time_end_where_one_of_them_went(app: FastAPI, send: Send) -> None:
    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000") as client:
            bodies = [{"version": number % 3 + 1} for number in range(50)]
            return await asyncio.gather(*(client.put(f"{MODELS}/tiny/aliases/live", json=body) for body in bodies))

    assert {each.status_code for each in asyncio.run(run())} == {200}
    assert numbers(send)["live"] in (1, 2, 3)


# ---- removal, verification, collection ----


def test_a_version_goes_with_its_files(send: Send, home: Path) -> None:
    assert send("DELETE", "/tiny/versions/1").json() == {"removed": ["tiny:1"], "freed_bytes": len("weights 1")}
    assert not (home / "models/tiny/1").exists()
    error_of(send("DELETE", "/tiny/versions/1"), 404)


def test_what_an_alias_points_to_goes_only_by_force(send: Send) -> None:
    assert error_of(send("DELETE", "/tiny/versions/live"), 409)["code"] == "model_in_use"
    assert send("DELETE", "/tiny/versions/live", params={"force": "true"}).json()["removed"] == ["tiny:3"]
    assert numbers(send) == {"live": 2}


def test_a_model_goes_with_all_of_its_versions(send: Send) -> None:
    assert send("DELETE", "/tiny").json()["removed"] == ["tiny:1", "tiny:2", "tiny:3"]
    error_of(send("GET", "/tiny"), 404)
    error_of(send("DELETE", "/tiny"), 404)


def test_what_is_loaded_goes_only_by_force(app: FastAPI, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded:
        spec = LoadSpec("tiny:2", (), ())

    monkeypatch.setattr(app.state.parts.pool, "loaded", lambda: [Loaded])
    for path in ("/tiny", "/tiny/versions/2"):
        assert error_of(send("DELETE", path), 409)["code"] == "model_in_use"
    assert send("DELETE", "/tiny/versions/1").status_code == 200
    assert send("DELETE", "/tiny", params={"force": True}).status_code == 200


def test_verification_names_what_is_wrong_with_the_files(send: Send, home: Path) -> None:
    assert send("POST", "/tiny/versions/live/verify").json() == {"version": "tiny:3", "problems": []}
    weights = home / "models/tiny/3/cpu-fp32/weights"
    weights.unlink()
    weights.write_text("changed!!")
    (weights.parent / "surplus").touch()
    problems = send("POST", "/tiny/versions/3/verify").json()["problems"]
    assert [problem["path"] for problem in problems] == ["cpu-fp32/weights", "cpu-fp32/surplus"]
    error_of(send("POST", "/tiny/versions/4/verify"), 404)


def test_verification_ends_with_its_request(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has_begun, has_ended = threading.Event(), threading.Event()

    def endless(version: ModelVersion, *, seen: Callable[[int], None]) -> tuple[Problem, ...]:
        has_begun.set()
        try:
            while True:
                seen(1)
                time.sleep(0.001)
        finally:
            has_ended.set()

    monkeypatch.setattr(versions, "problems_of", endless)
    with LiveServer(Settings(engine="fake", home=home, port=0)) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port)) as client:  # which leaves once the work has begun
            head = f"POST {MODELS}/tiny/versions/1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
            client.sendall(head.encode())
            assert has_begun.wait(PATIENCE_S)
        assert has_ended.wait(PATIENCE_S)
        assert http.get(REGISTRY).status_code == 200


def test_collection_removes_what_nothing_refers_to(app: FastAPI, send: Send, home: Path) -> None:
    stray = home / "models/tiny/17"
    stray.mkdir()
    (home / "blobs/sha256/ab").mkdir(exist_ok=True)
    (home / "blobs/sha256/ab" / ("ab" * 32)).write_bytes(b"12345")
    assert call_app(app, "POST", f"{REGISTRY}/gc").json() == {"freed_bytes": 5}
    assert not stray.exists()
    assert send("POST", "/tiny/versions/live/verify").json()["problems"] == []
