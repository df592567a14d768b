"""`/admin/jobs` and `/admin/pipelines` over HTTP, with jobs that count in real processes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from server.app import create_app
from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    settings = Settings(engine="fake", home=tmp_path_factory.mktemp("home"), port=0)
    with LiveServer(settings, create_app(settings, tasks="tests.doubles.counting_tasks")) as server:
        yield server


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    """Of a server without jobs."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for job in client.get("/admin/jobs").json()["data"]:
            if job["status"] not in ("succeeded", "failed", "cancelled"):
                client.post(f"/admin/jobs/{job['id']}/cancel").raise_for_status()
            client.delete(f"/admin/jobs/{job['id']}").raise_for_status()
        yield client


def create(http: httpx.Client, **params: Any) -> dict[str, Any]:
    answer = http.post("/admin/jobs", json={"kind": "finetune", "params": params, "metadata": {"owner": "me"}})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def events_of(http: httpx.Client, job: str, **headers: str) -> list[tuple[int, dict[str, Any]]]:
    """Followed to the job's end: the id of each frame, and its event."""
    with http.stream("GET", f"/admin/jobs/{job}/events", headers={"Accept": "text/event-stream", **headers}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        frames = [frame.split("\n") for frame in response.read().decode().split("\n\n") if frame and not frame.startswith(":")]
    return [(int(id_.removeprefix("id: ")), json.loads(data.removeprefix("data: "))) for id_, _, data in frames]


def sample(exposition: str, series: str) -> float:
    """0 while there is no such series."""
    return next((float(line.split()[-1]) for line in exposition.splitlines() if line.startswith(f"{series} ")), 0.0)


def test_a_job_is_created_followed_shown_and_deleted(http: httpx.Client) -> None:
    job = create(http, steps=3)
    assert (job["status"] in ("queued", "running"), job["metadata"], job["plan"]["num_steps"]) == (True, {"owner": "me"}, 3)
    events = events_of(http, job["id"])
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert events[-1][1]["data"]["status"] == "succeeded"
    shown = http.get(f"/admin/jobs/{job['id']}").json()
    assert (shown["status"], shown["progress"]["step"], shown["attempt"]) == ("succeeded", 3, 1)
    later = events_of(http, job["id"], **{"Last-Event-ID": str(len(events) - 2)})
    assert later == events[-2:]
    listed = http.get(f"/admin/jobs/{job['id']}/events", params={"after": 1}).json()["data"]
    assert listed == [event for _, event in events[1:]]
    assert http.delete(f"/admin/jobs/{job['id']}").json() == {"id": job["id"], "deleted": True}
    assert http.get(f"/admin/jobs/{job['id']}").json()["error"]["code"] == "job_not_found"
    assert not Path(job["folder"]).exists()


def test_lists_are_filtered_and_paged(http: httpx.Client) -> None:
    made = [create(http, steps=1)["id"] for _ in range(3)]
    events_of(http, made[-1])
    page = http.get("/admin/jobs", params={"limit": 2}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == (made[:0:-1], True)
    rest = http.get("/admin/jobs", params={"limit": 2, "after": made[1]}).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == (made[:1], False)
    assert http.get("/admin/jobs", params={"status": "paused"}).json()["data"] == []
    assert len(http.get("/admin/jobs", params={"kind": "finetune", "status": "succeeded"}).json()["data"]) == 3


def test_bad_data_is_refused_with_file_and_line(http: httpx.Client) -> None:
    answer = http.post("/admin/jobs", json={"kind": "finetune", "params": {"steps": 0}})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["message"]) == (400, "steps", "numbers.jsonl:3: there is nothing to count")
    assert error["problems"][0]["line"] == 3
    unknown = http.post("/admin/jobs", json={"kind": "finetune", "params": {"steps": 1, "stops": 2}}).json()["error"]
    assert (unknown["param"], len(unknown["problems"])) == ("stops", 1)
    assert http.get("/admin/jobs").json()["data"] == []


@pytest.mark.parametrize("path", ["/admin/jobs", "/admin/job-plans", "/admin/pipelines"])
def test_a_body_that_is_no_json_is_reported_as_such(http: httpx.Client, path: str) -> None:
    answer = http.post(path, content=b"{bad")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_misspelt_param_is_reported_with_those_that_there_are(http: httpx.Client) -> None:
    error = http.post("/admin/jobs", json={"kind": "finetune", "params": {"stepps": 1}}).json()["error"]
    assert (error["param"], error["code"]) == ("steps", "missing_required_parameter")
    assert [problem["param"] for problem in error["problems"]] == ["steps", "stepps"]
    assert error["message"].splitlines() == [problem["message"] for problem in error["problems"]]


def test_a_dry_run_queues_nothing(http: httpx.Client) -> None:
    plan = http.post("/admin/job-plans", json={"kind": "finetune", "params": {"steps": 7}}).json()
    assert (plan["summary"], plan["num_steps"], plan["memory_bytes"]) == (["Counts to 7."], 7, None)
    assert http.get("/admin/jobs").json()["data"] == []


def test_plans_are_two_at_a_time_and_end_with_their_requests(http: httpx.Client, server: LiveServer, tmp_path: Path) -> None:
    notes = [tmp_path / "first", tmp_path / "second"]
    requested = [{"kind": "finetune", "params": {"steps": 1, "plan_note": str(note)}} for note in notes]

    async def leave_two() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
            paths = ("/admin/job-plans", "/admin/jobs")
            posts = [asyncio.create_task(client.post(path, json=body)) for path, body in zip(paths, requested, strict=True)]
            async with asyncio.timeout(60):
                while not all(written_in(note) for note in notes):
                    assert not any(post.done() for post in posts)
                    await asyncio.sleep(0.01)
            refused = await client.post("/admin/job-plans", json={"kind": "finetune", "params": {"steps": 1}})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_plans")
            assert refused.headers["Retry-After"] == "5"
            for post in posts:
                post.cancel()
            await asyncio.wait(posts)

    asyncio.run(leave_two())
    assert server.call(server.parts.lifecycle.wait_idle(60), 61), "a plan outlives its request"
    assert not any(psutil.pid_exists(int(written_in(note))) for note in notes)
    assert http.post("/admin/job-plans", json={"kind": "finetune", "params": {"steps": 7}}).json()["num_steps"] == 7
    assert http.get("/admin/jobs").json()["data"] == []


def written_in(path: Path) -> str:
    """Nothing while the file is not there."""
    return path.read_text() if path.exists() else ""


def test_a_locked_database_is_503_for_who_creates_a_job(
    http: httpx.Client, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.parts.storage.database, "lock_timeout_s", 0.1)
    path = server.parts.settings.home / "registry.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = http.post("/admin/jobs", json={"kind": "finetune", "params": {"steps": 1}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "registry_busy")
    assert answer.headers["Retry-After"] == "2"
    assert http.get("/admin/jobs").json()["data"] == []
    create(http, steps=1)


def test_a_job_is_paused_resumed_and_cancelled(http: httpx.Client, tmp_path: Path) -> None:
    job = create(http, steps=2, gate=str(tmp_path / "gate"))
    with http.stream("GET", f"/admin/jobs/{job['id']}/events", params={"stream": True}) as response:
        assert any('"checkpoint"' in line for line in response.iter_lines())
        response.close()
    assert http.post(f"/admin/jobs/{job['id']}/pause").json()["status"] == "paused"
    again = http.post(f"/admin/jobs/{job['id']}/pause")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "wrong_status")
    assert http.delete(f"/admin/jobs/{job['id']}").status_code == 409
    assert http.post(f"/admin/jobs/{job['id']}/resume").json()["status"] in ("queued", "running")
    assert http.post(f"/admin/jobs/{job['id']}/cancel").json()["status"] == "cancelled"


def test_a_pipeline_runs_in_order_or_leaves_nothing(http: httpx.Client) -> None:
    first = {"name": "first", "kind": "finetune", "params": {"steps": 1}}
    second = {"name": "second", "kind": "finetune", "params": {"steps": 2}, "after": ["first"]}
    chain = http.post("/admin/pipelines", json={"steps": [second, first], "metadata": {"owner": "me"}}).json()
    assert [job["metadata"] for job in chain["jobs"]] == [
        {"owner": "me", "step": name, "step_number": number, "num_steps": "2"} for name, number in (("first", "1"), ("second", "2"))
    ]
    assert chain["jobs"][1]["needs"] == [chain["jobs"][0]["id"]]
    events_of(http, chain["jobs"][1]["id"])
    shown = http.get(f"/admin/pipelines/{chain['id']}").json()
    assert (shown["status"], [job["progress"]["step"] for job in shown["jobs"]]) == ("succeeded", [1, 2])

    bad = {"name": "bad", "kind": "finetune", "params": {"steps": 0}}
    refused = http.post("/admin/pipelines", json={"steps": [first, bad]})
    assert (refused.status_code, len(http.get("/admin/jobs").json()["data"])) == (400, 2)
    circle = [{**first, "after": ["second"]}, second]
    assert "circle" in http.post("/admin/pipelines", json={"steps": circle}).json()["error"]["message"]
    assert http.get("/admin/pipelines/pipe-none").status_code == 404


def test_the_log_and_the_kinds(http: httpx.Client) -> None:
    job = create(http, steps=1, crash=True)
    events_of(http, job["id"])
    log = http.get(f"/admin/jobs/{job['id']}/log")
    assert "ZeroDivisionError" in log.text
    assert http.get(f"/admin/jobs/{job['id']}/log", params={"tail": 1}).text.count("\n") == 1
    failure = http.get(f"/admin/jobs/{job['id']}").json()["failure"]
    assert failure["code"] == "internal_error"
    assert "secret" not in failure["message"]
    kinds = http.get("/admin/job-kinds").json()["data"]
    assert "steps" in kinds[0]["params"]["properties"]


def test_prometheus_sees_jobs(http: httpx.Client, tmp_path: Path) -> None:
    text = http.get("/metrics").text
    before = {
        "starts": sample(text, 'slmops_job_starts_total{kind="finetune"}'),
        "failures": sample(text, 'slmops_job_failures_total{code="internal_error",kind="finetune"}'),
        "durations": sample(text, 'slmops_job_duration_seconds_count{kind="finetune",status="succeeded"}'),
    }
    events_of(http, create(http, steps=2)["id"])
    events_of(http, create(http, steps=2, crash=True)["id"])
    waiting = create(http, steps=4, gate=str(tmp_path / "gate"))["id"]
    with http.stream("GET", f"/admin/jobs/{waiting}/events", params={"stream": True}) as response:
        assert any('"step":3' in line for line in response.iter_lines())
        response.close()
    text = http.get("/metrics").text
    assert 'slmops_jobs{kind="finetune",status="succeeded"} 1.0' in text
    assert sample(text, 'slmops_job_starts_total{kind="finetune"}') == before["starts"] + 3
    assert sample(text, 'slmops_job_failures_total{code="internal_error",kind="finetune"}') == before["failures"] + 1
    assert sample(text, 'slmops_job_duration_seconds_count{kind="finetune",status="succeeded"}') == before["durations"] + 1
    assert f'slmops_job_progress_ratio{{job_id="{waiting}",kind="finetune"}} 0.75' in text
    http.post(f"/admin/jobs/{waiting}/cancel")


def test_a_kind_may_be_spelt_in_any_case_and_is_refused_with_what_was_meant(http: httpx.Client) -> None:
    job = http.post("/admin/jobs", json={"kind": "Fine-Tune", "params": {"steps": 1}}).json()
    assert job["kind"] == "finetune"
    assert http.get("/admin/jobs", params={"kind": "FineTune"}).json()["data"][0]["id"] == job["id"]
    error = http.post("/admin/jobs", json={"kind": "tune"}).json()["error"]
    assert (error["param"], error["code"], "'finetune'" in error["message"]) == ("kind", "invalid_value", True)


def test_stages_have_their_numbers(http: httpx.Client) -> None:
    job = create(http, steps=1)
    stages = [event["data"] for _, event in events_of(http, job["id"]) if event["type"] == "stage"]
    assert stages == [{"number": 1, "total": 1}]
    shown = http.get(f"/admin/jobs/{job['id']}").json()
    assert (shown["progress"]["stage_number"], shown["progress"]["num_stages"], shown["plan"]["stages"]) == (1, 1, ["counting"])
