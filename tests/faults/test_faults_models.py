"""Models that are broken, or become so while a real engine serves them: a clear error, and everybody else is served."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from model_registry.registry import open_registry
from server.cli.program import execute
from tests.doubles.daemon_process import Daemon, running_daemon
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.tiny_gguf import Tiny
from tests.faults.open_requests import CHAT, OpenRequest, all_started, chat_body, with_client

pytestmark = pytest.mark.model

PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"
HOSTILE = "{{ messages.__class__.__mro__[1].__subclasses__() }}"


@pytest.fixture
def home(tmp_path: Path, kept_homes: KeptHomes) -> Path:
    """Holds the tiny models `good` and `bad`, with weights of their own: equal files are shared."""

    def tiny(template: str, layers: int) -> Tiny:
        return Tiny(context=4096, layers=layers, metadata={"tokenizer.chat_template": template})

    return kept_homes.tiny(tmp_path / "home", good=tiny(PLAIN, 2), bad=tiny(HOSTILE, 1))


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    with running_daemon(home, "--engine", "onnx", "--model", "good", "--shutdown-grace-s", "0") as daemon:
        daemon.wait_until_ready()
        yield daemon


@pytest.fixture
def http(daemon: Daemon) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=daemon.url, timeout=30, trust_env=False) as client:
        yield client


def weights_of(home: Path, name: str) -> Path:
    with open_registry(home) as registry:
        folder = registry.resolve(name).variants[0].folder
    return max(folder.iterdir(), key=lambda path: path.stat().st_size)


def test_a_template_that_reaches_for_python_is_refused_and_others_are_served(http: httpx.Client) -> None:
    refused = http.post(CHAT, json=chat_body("hi", model="bad"))
    assert refused.status_code == 400
    assert "sandbox" in refused.json()["error"]["message"]
    assert http.post("/v1/completions", json={"model": "bad", "prompt": "hi", "max_tokens": 2}).status_code == 200
    assert http.post(CHAT, json=chat_body("hi", max_tokens=2)).status_code == 200


def test_the_worker_of_another_model_may_die_unnoticed(daemon: Daemon, http: httpx.Client) -> None:
    ids = {
        row["id"].partition(":")[0]: row["pid"] for row in (http.post(f"/admin/models/{n}/load").json() for n in ("good", "bad"))
    }

    async def kill_one(client: httpx.AsyncClient) -> None:
        body = {"prompt": "the", "ignore_eos": True, "stream": True}
        failing = OpenRequest(client, "/v1/completions", {**body, "model": "bad", "max_tokens": 4000})
        others = [OpenRequest(client, "/v1/completions", {**body, "model": "good", "max_tokens": 100}) for _ in range(4)]
        await all_started([failing, *others])
        os.kill(ids["bad"], 9)
        assert (await failing.ending).error["code"] == "engine_dead"
        assert [ending.last for ending in await asyncio.gather(*(other.ending for other in others))] == ["[DONE]"] * 4

    with_client(daemon.url, kill_one)
    assert {worker.pid for worker in daemon.workers()} >= {ids["good"]}


def test_a_damaged_file_is_named_by_verify_and_its_load_fails_clearly(
    home: Path, daemon: Daemon, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = weights_of(home, "bad")
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    monkeypatch.setenv("SLMOPS_HOME", str(home))
    monkeypatch.setenv("SLMOPS_PORT", "1")
    assert execute(["verify"]) == 1
    assert weights.name in "".join(capsys.readouterr())
    for _ in range(2):
        failed = http.post("/v1/completions", json={"model": "bad", "prompt": "hi"})
        assert failed.status_code == 503
        assert "bad:1 could not be loaded" in failed.json()["error"]["message"]
        assert "slmops verify" in failed.json()["error"]["message"]
    assert http.post(CHAT, json=chat_body("hi", max_tokens=2)).status_code == 200
    assert len(daemon.workers()) == 1


def test_a_restart_that_fails_is_not_ready_though_no_request_came(home: Path, daemon: Daemon, http: httpx.Client) -> None:
    (worker,) = daemon.workers()
    weights_of(home, "good").unlink()
    worker.kill()
    deadline = time.monotonic() + 20
    while "could not be loaded" not in (ready := http.get("/ready")).text:
        assert time.monotonic() < deadline, ready.text
    assert ready.status_code == 503
    assert http.get("/admin/models").json()["data"] == []


def test_a_model_that_is_damaged_while_it_serves_fails_clearly_and_makes_the_daemon_not_ready(
    home: Path, daemon: Daemon, http: httpx.Client
) -> None:
    """Its worker dies, and no other can be started."""
    (worker,) = daemon.workers()
    weights = weights_of(home, "good")
    whole = weights.read_bytes()
    weights.unlink()
    worker.kill()
    for _ in range(10):
        failed = http.post("/v1/completions", json={"prompt": "hi"})
        assert failed.status_code == 503
        if failed.json()["error"]["code"] == "load_failed":
            break
    assert http.get("/health").status_code == 200
    not_ready = http.get("/ready")
    assert not_ready.status_code == 503
    assert "could not be loaded" in not_ready.json()["error"]["message"]
    weights.write_bytes(whole)
    assert http.post("/admin/models/good/reset").status_code == 200  # rather than wait for the next attempt
    assert http.post("/v1/completions", json={"prompt": "hi", "max_tokens": 2}).status_code == 200
    assert http.get("/ready").status_code == 200
