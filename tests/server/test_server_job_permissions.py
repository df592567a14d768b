"""What a job may not do over HTTP by default: run code, read files, write folders, send variables to servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer

SERVER = {"url": "http://127.0.0.1:1/v1", "key_env": "PATH"}
FILE = {"data": "/etc/hostname"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(Settings(engine="fake", home=tmp_path_factory.mktemp("home"), port=0)) as server:
        yield server


@pytest.fixture(scope="module")
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("path", ["/admin/job-plans", "/admin/jobs"])
@pytest.mark.parametrize(
    ("kind", "params", "param", "expected_text"),
    [
        ("evaluate", {"target": SERVER, "data": "file-a"}, "target", "cannot be set by a job"),
        ("evaluate", {"target": {"endpoint": "x"}, "data": "file-a"}, "target.endpoint", "no endpoint 'x'"),
        ("evaluate", {"target": "fake", **FILE}, "data", "data_roots"),
        ("finetune", {"model": "fake", **FILE}, "data", "data_roots"),
        ("distil", {"teacher": "fake", "student": "fake", **FILE}, "data", "data_roots"),
        ("quantize", {"model": "fake", "calibration": "/etc/hostname"}, "calibration", "data_roots"),
        ("convert", {"source": "/etc"}, "source", "data_roots"),
        ("merge", {"adapter": "/etc"}, "adapter", "data_roots"),
        ("olive", {"workflow": "/etc/hostname", "output": "x"}, "workflow", "data_roots"),
        ("foundry-export", {"model": "fake", "folder": "/tmp/x"}, "folder", "output_roots"),
        (
            "search",
            {"kind": "finetune", "objective": "f1", "params": {"model": "fake", "data": {"$choice": ["/etc/hostname"]}}},
            "params.data.$choice.0",
            "data_roots",
        ),
    ],
)
def test_what_is_not_listed_is_refused_by_its_param(
    http: httpx.Client, path: str, kind: str, params: dict[str, Any], param: str, expected_text: str
) -> None:
    answer = http.post(path, json={"kind": kind, "params": params})
    error = answer.json()["error"]
    assert (answer.status_code, expected_text in error["message"]) == (400, True), error
    assert str(error["param"]).startswith(param)
    assert http.get("/admin/jobs").json()["data"] == []


def test_a_chain_is_refused_whole(http: httpx.Client) -> None:
    steps = [{"name": "tune", "kind": "finetune", "params": {"model": "fake", **FILE}}]
    assert http.post("/admin/pipelines", json={"steps": steps}).json()["error"]["code"] == "not_allowed"


def test_an_uploaded_script_does_not_run_in_a_plan(http: httpx.Client, tmp_path: Path) -> None:
    script = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    uploaded = http.post("/v1/files", files={"file": ("x.py", script.encode())}, data={"purpose": "user_data"}).json()["id"]
    workflow = {
        "input_model": {"type": "HfModel", "model_path": "/models/x", "load_kwargs": {"trust_remote_code": True}},
        "data_configs": [{"name": "d", "user_script": uploaded}],
        "passes": {"b": {"type": "ModelBuilder", "precision": "int4"}},
    }
    answer = http.post("/admin/job-plans", json={"kind": "olive", "params": {"workflow": workflow, "output": "x"}})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "code_not_allowed")
    assert {each["param"] for each in error["problems"]} == {"workflow.data_configs", "workflow.input_model.load_kwargs"}
    assert "allow_code = true in [jobs] of slmops.toml" in error["message"]
    assert not (tmp_path / "ran").exists()


def test_a_file_that_only_an_undeclared_field_names_is_not_in_use(http: httpx.Client) -> None:
    uploaded = http.post("/v1/files", files={"file": ("x.jsonl", b"{}")}, data={"purpose": "user_data"}).json()
    assert len(uploaded["sha256"]) == 64
    assert http.delete(f"/v1/files/{uploaded['id']}").status_code == 200
