"""The disk over HTTP: its report, its metrics, and what is refused where there is no room."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_registry.disk_space.kinds import StorageKind
from server.app import create_app
from server.settings.daemon import Settings, effective
from server.settings.toml_file import InvalidSettings
from server.storage import disk_watch
from tests.doubles.live_server import LiveServer

MB = 1_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    limits = {"uploads_max_bytes": 3 * MB, "jobs_max_bytes": 50 * MB, "min_free_bytes": 0}
    settings = Settings(engine="fake", home=tmp_path_factory.mktemp("home"), port=0, disk=limits)
    with LiveServer(settings, create_app(settings, tasks="tests.doubles.counting_tasks")) as server:
        yield server


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client


def upload(http: httpx.Client, num_bytes: int) -> httpx.Response:
    return http.post("/v1/files", files={"file": ("a.jsonl", b"x" * num_bytes)}, data={"purpose": "fine-tune"})


def kind(http: httpx.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in http.get("/admin/registry/disk").json()["kinds"] if each["kind"] == name)
    return found


def test_the_report_has_every_kind_and_the_limits(http: httpx.Client, server: LiveServer) -> None:
    body = http.get("/admin/registry/disk").json()
    assert [each["kind"] for each in body["kinds"]] == [str(kind) for kind in StorageKind]
    assert body["home"] == str(server.parts.settings.home)
    assert body["used_bytes"] == sum(each["used_bytes"] for each in body["kinds"])
    assert (kind(http, "uploads")["quota_bytes"], kind(http, "exports")["quota_bytes"], body["max_bytes"]) == (3 * MB, None, None)


def test_an_upload_without_room_is_507_with_the_arithmetic(http: httpx.Client) -> None:
    first = upload(http, 2 * MB)
    assert first.status_code == 200
    refused = upload(http, 2 * MB)
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "out_of_disk")
    for number in ("needs 2.0 MB", "disk.uploads_max_bytes allows 3.0 MB", "2.0 MB are used"):
        assert number in refused.json()["error"]["message"]
    assert kind(http, "uploads")["used_bytes"] < 3 * MB
    assert http.delete(f"/v1/files/{first.json()['id']}").status_code == 200
    again = upload(http, 2 * MB)
    assert again.status_code == 200
    http.delete(f"/v1/files/{again.json()['id']}").raise_for_status()


def test_a_job_without_room_is_507_and_leaves_nothing(http: httpx.Client) -> None:
    def create(disk_bytes: int) -> httpx.Response:
        return http.post("/admin/jobs", json={"kind": "finetune", "params": {"steps": 1, "disk_bytes": disk_bytes}})

    refused = create(60 * MB)
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "out_of_disk")
    assert http.get("/admin/jobs").json()["data"] == []
    made = create(40 * MB)
    assert made.status_code == 201
    while http.get(f"/admin/jobs/{made.json()['id']}").json()["status"] in ("queued", "running"):
        time.sleep(0.05)
    assert http.get(f"/admin/jobs/{made.json()['id']}").json()["status"] == "succeeded"


def test_the_metrics_are_those_of_the_newest_look(http: httpx.Client, server: LiveServer) -> None:
    server.parts.storage.disk_watch.look()
    lines = http.get("/metrics").text.splitlines()
    assert 'slmops_disk_quota_bytes{kind="uploads"} 3e+06' in lines
    assert any(line.startswith("slmops_disk_free_bytes ") for line in lines)
    for each in StorageKind:
        assert any(line.startswith(f'slmops_disk_used_bytes{{kind="{each}"}}') for line in lines)
        assert any(line.startswith(f'slmops_disk_collected_bytes_total{{kind="{each}"}}') for line in lines)


def test_the_daemon_collects_by_itself(
    make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_watch, "LOOK_EVERY_S", 0.05)
    dead = tmp_path / "home" / "staging" / "dead"
    dead.mkdir(parents=True)
    (dead / "x").write_bytes(bytes(1000))
    with LiveServer(make_settings()) as server:
        until = time.monotonic() + 20
        while dead.exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert not dead.exists()
        assert server.parts.storage.disk.collected_bytes()[StorageKind.DOWNLOADS] == 1000


def test_a_warning_is_logged_before_the_disk_is_full(
    make_settings: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(make_settings(disk={"min_free_bytes": 1 << 60}))
    watch = app.state.parts.storage.disk_watch
    watch.look()
    watch.look()
    assert [record.message for record in caplog.records].count("the disk is nearly full") == 1
    assert watch.newest.warnings


class TestSettings:
    def test_units_and_the_table(self, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SLMOPS_DISK", '{"max_bytes": "10GB", "versions_max_bytes": "1GiB", "keep_versions": 3}')
        limits = make_settings().disk_limits()
        assert (limits.max_bytes, limits.kinds, limits.keep_versions) == (10**10, {StorageKind.VERSIONS: 1 << 30}, 3)
        assert limits.min_free_bytes is None
        shown = next(line for line in effective(make_settings()) if line.name == "disk")
        assert (shown.origin, shown.value) == (
            "SLMOPS_DISK",
            {"max_bytes": 10**10, "versions_max_bytes": 1 << 30, "keep_versions": 3},
        )

    @pytest.mark.parametrize(
        ("table", "named"),
        [
            ({"max_bytes": 1}, "disk.max_bytes"),
            ({"keep_versions": 0}, "disk.keep_versions"),
            ({"keep_jobs_days": -1}, "disk.keep_jobs_days"),
            ({"keep_uploads_days": "soon"}, "disk.keep_uploads_days"),
            ({"max_byte": 1 << 30}, "the settings of the disk are max_bytes"),
            ("{", "JSON object"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, make_settings: Callable[..., Settings], table: object, named: str) -> None:
        with pytest.raises(InvalidSettings, match=named):
            make_settings(disk=table)
