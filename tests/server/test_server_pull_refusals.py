"""Pulls that are refused before anything is queued: references, names, space, the network, keys, daemons that run no jobs."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from filelock import FileLock

from model_registry import disk
from model_registry.database import Database
from model_registry.keys import KeyStore
from server.app import create_app
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer, call_app, error_of

PULLS = "/admin/registry/pulls"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[..., FastAPI]]:
    made: list[FastAPI] = []

    def make(**settings: Any) -> FastAPI:
        made.append(create_app(Settings(**({"engine": "fake", "home": tmp_path / "home", "port": 0} | settings))))
        return made[-1]

    yield make
    for app in made:
        app.state.parts.storage.close()


def refused(app: FastAPI, body: Any, status: int = 400) -> dict[str, Any]:
    error = error_in(call_app(app, "POST", PULLS, json=body), status)
    assert call_app(app, "GET", PULLS).json()["data"] == []
    return error


def error_in(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Of a job, whose problems are listed beside it."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"reference": "smollm2-136m"}, "reference", "invalid_reference"),
        ({"reference": "smollm2-135m:q9"}, "reference", "invalid_reference"),
        ({"reference": "models/../tiny.gguf"}, "reference", "invalid_reference"),
        ({"reference": "./tiny"}, "reference", "invalid_reference"),
        ({"reference": "Modell-ö"}, "reference", "invalid_reference"),
        ({"reference": "hf://a/../b"}, "reference", "invalid_reference"),
        ({"reference": "http://example.org/x.gguf"}, "reference", "invalid_reference"),
        ({"reference": "a\0b"}, "reference", "invalid_reference"),
        ({"reference": "/etc/passwd"}, "reference", "not_allowed"),
        ({"reference": "file:///etc/passwd"}, "reference", "not_allowed"),
        ({"reference": "x" * 5000}, "reference", "invalid_value"),
        ({"reference": ""}, "reference", "invalid_value"),
        ({"reference": 7}, "reference", "invalid_value"),
        ({}, "reference", "missing_required_parameter"),
        ({"reference": "smollm2-135m", "nmae": "x"}, "nmae", "invalid_value"),
        ({"reference": "smollm2-135m", "name": "No Name"}, "name", "invalid_value"),
        ({"reference": "smollm2-135m", "name": "../x"}, "name", "invalid_value"),
        ({"reference": "smollm2-135m", "precision": "int3"}, "precision", "invalid_value"),
        ({"reference": "smollm2-135m", "builds": ["tpu-int4"]}, "builds", "invalid_value"),
        ({"reference": "smollm2-135m", "trial": "perhaps"}, "trial", "invalid_value"),
    ],
)
def test_a_bad_order_is_refused_by_name(make_app: Callable[..., FastAPI], body: Any, param: str, code: str) -> None:
    error = refused(make_app(), body)
    assert (error["param"], error["code"]) == (param, code), error


def test_the_nearest_names_are_suggested(make_app: Callable[..., FastAPI]) -> None:
    assert "smollm2-135m" in refused(make_app(), {"reference": "smollm2-136m"})["message"]
    assert "qwen3-0.6b" in refused(make_app(), {"reference": "Qwen3-0.6"})["message"]


def test_an_unknown_upload_is_not_found(make_app: Callable[..., FastAPI]) -> None:
    assert refused(make_app(), {"reference": "file-abc123"}, 404)["code"] == "file_not_found"


def test_offline_nothing_is_fetched(make_app: Callable[..., FastAPI]) -> None:
    assert refused(make_app(offline=True), {"reference": "smollm2-135m"})["code"] == "offline"


def test_too_little_space_is_said_with_both_numbers(make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 5_000_000, 5_000_000))
    error = refused(make_app(), {"reference": "smollm2-135m"}, 507)
    assert error["code"] == "out_of_disk"
    assert "92.9 MB" in error["message"]
    assert "5.0 MB" in error["message"]


def test_jobs_are_no_way_around_the_checks(make_app: Callable[..., FastAPI]) -> None:
    app, step = make_app(), {"kind": "pull", "params": {"reference": "smollm2-135m"}}
    for path, body in (
        ("/admin/jobs", step),
        ("/admin/job-plans", step),
        ("/admin/pipelines", {"steps": [{"name": "a", **step}]}),
    ):
        error = error_in(call_app(app, "POST", path, json=body), 400)
        assert (error["param"], PULLS in error["message"]) == ("kind", True)


def test_only_an_admin_pulls_and_a_reader_sees(tmp_path: Path) -> None:
    with Database(tmp_path / "home") as database:
        store = KeyStore(database)
        keys = {name: store.create(name, [name]).secret for name in ("jobs", "read", "inference", "admin")}
    with LiveServer(Settings(engine="fake", home=tmp_path / "home", port=0)) as server:
        statuses = {}
        for name, key in keys.items():
            headers = {"Authorization": f"Bearer {key}"}
            with httpx.Client(base_url=server.url, timeout=60, trust_env=False, headers=headers) as http:
                asked = http.post(PULLS, json={"reference": "nobody-knows"}), http.get(PULLS), http.get("/admin/registry/models")
                statuses[name] = [answer.status_code for answer in asked]
                error_in(http.post("/admin/jobs", json={"kind": "pull"}), 403 if name in ("read", "inference") else 400)
    assert statuses == {
        "jobs": [403, 403, 403],
        "read": [403, 200, 200],
        "inference": [403, 403, 403],
        "admin": [400, 200, 200],
    }


def test_a_daemon_whose_home_has_another_one_says_so(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    (tmp_path / "home/locks").mkdir(parents=True)
    with FileLock(tmp_path / "home" / disk.DAEMON_LOCK):
        assert refused(make_app(), {"reference": "smollm2-135m"}, 409)["code"] == "jobs_elsewhere"


def test_a_home_that_cannot_be_written_says_so(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(make_app(home=tmp_path / "file"), {"reference": "smollm2-135m"}, 507)["code"] == "not_writable"


@pytest.mark.parametrize("path", ["", "/events", "/cancel", "/pause", "/resume"])
def test_an_unknown_pull_is_not_found(make_app: Callable[..., FastAPI], path: str) -> None:
    method = "GET" if path in ("", "/events") else "POST"
    assert error_of(call_app(make_app(), method, f"{PULLS}/job-none{path}"), 404)["code"] == "job_not_found"
