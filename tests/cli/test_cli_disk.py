"""disk, gc and doctor: what takes the room, on real homes without a daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from model_registry.disk_space.kinds import StorageKind
from model_registry.records import ModelVersion

if TYPE_CHECKING:
    from tests.cli.conftest import Slmops

pytestmark = pytest.mark.api  # a command looks for a daemon first
Publish = Callable[..., ModelVersion]


def dead_staging(home: Path, num_bytes: int = 1000) -> Path:
    folder = home / "staging" / "dead"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(bytes(num_bytes))
    return folder


def test_disk_of_nothing_makes_nothing(slmops: Slmops, home: Path) -> None:
    run = slmops("disk")
    assert run.code == 0
    assert "new work leaves" in run.out
    assert not home.exists()


def test_disk_shows_kinds_and_with_all_each_item(slmops: Slmops, home: Path, publish: Publish) -> None:
    publish("tiny")
    dead_staging(home)
    plain, everything = slmops("disk").out, slmops("disk", "--all").out
    assert "slmops rm MODEL" in plain
    assert "tiny:1" not in plain
    assert "tiny:1" in everything
    assert "its process has died" in everything


def test_disk_as_json_has_stable_keys(slmops: Slmops, publish: Publish) -> None:
    publish("tiny")
    body = json.loads(slmops("disk", "--json").out)
    assert {"home", "used_bytes", "max_bytes", "free_bytes", "total_bytes", "min_free_bytes", "kinds", "items"} <= set(body)
    assert [each["kind"] for each in body["kinds"]] == [str(kind) for kind in StorageKind]
    assert next(each for each in body["items"] if each["name"] == "tiny:1")["freed_bytes"] > 0


def test_a_dry_run_removes_nothing_and_gc_removes_what_it_said(slmops: Slmops, home: Path) -> None:
    dead = dead_staging(home)
    dry = json.loads(slmops("gc", "--dry-run", "--json").out)
    assert (dry["would_free_bytes"], [each["name"] for each in dry["candidates"]]) == (1000, ["staging/dead"])
    assert "staging/dead" in slmops("gc", "--dry-run").out
    assert dead.exists()
    assert json.loads(slmops("gc", "--json").out) == {"freed_bytes": 1000}
    assert not dead.exists()
    assert json.loads(slmops("gc", "--json").out) == {"freed_bytes": 0}


def test_a_pull_beyond_the_quota_is_one_line_with_the_arithmetic(
    slmops: Slmops, home: Path, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("tiny", "x" * 2_000_000)
    source = Path("other.gguf")
    source.write_bytes(b"GGUF".ljust(1_500_000, b"x"))
    monkeypatch.setenv("SLMOPS_DISK", '{"versions_max_bytes": 3000000}')
    run = slmops("pull", str(source.absolute()))
    assert run.code == 1
    (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    for number in ("needs 1.5 MB", "disk.versions_max_bytes allows 3.0 MB", "2.0 MB are used"):
        assert number in line
    assert list((home / "staging").iterdir()) == []


def test_what_is_nearly_full_is_noted(slmops: Slmops, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("tiny", "x" * 2_000_000)
    monkeypatch.setenv("SLMOPS_DISK", '{"versions_max_bytes": 2100000}')
    assert "disk.versions_max_bytes" in slmops("disk").out
    finding = next(each for each in json.loads(slmops("doctor", "--json").out) if each["subject"] == "disk")
    assert finding["status"] in ("note", "problem")
