"""What a home takes of the disk, measured on real files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_registry.disk import entries, tree_bytes
from model_registry.disk_space import walk as walking
from model_registry.disk_space.kinds import StorageKind, kind_of
from model_registry.disk_space.usage import ItemUsage, measure
from model_registry.records import ModelVersion
from model_registry.registry import Registry

Publish = Callable[..., ModelVersion]
BLOCK = 4096


def fill(path: Path, num_bytes: int = 10 * BLOCK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(num_bytes))
    return path


def item(items: tuple[ItemUsage, ...], name: str) -> ItemUsage:
    return next(each for each in items if each.name == name)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("blobs/sha256/aa/aaaa", StorageKind.VERSIONS),
        ("models/tiny/1/cpu-int8/model.onnx", StorageKind.VERSIONS),
        ("checkpoints/abc/model.safetensors", StorageKind.CHECKPOINTS),
        ("files/file-1/data.jsonl", StorageKind.UPLOADS),
        ("jobs/job-1/work/report.md", StorageKind.JOBS),
        ("downloads/key/x.part", StorageKind.DOWNLOADS),
        ("staging/id/x", StorageKind.DOWNLOADS),
        ("caches/x", StorageKind.CACHES),
        ("exports/model/x", StorageKind.EXPORTS),
        ("backups/2026.tar", StorageKind.BACKUPS),
        ("registry.db.before-r0005", StorageKind.BACKUPS),
        ("registry.db", StorageKind.OTHER),
        ("what/else", StorageKind.OTHER),
    ],
)
def test_each_file_belongs_to_one_kind(home: Path, path: str, kind: StorageKind) -> None:
    fill(home / path)
    usage = measure(home)
    assert kind_of(path.split("/")[0]) is kind
    assert [each.kind for each in usage.kinds.values() if each.num_files] == [kind]
    assert usage.used_bytes == usage.used(kind) >= 10 * BLOCK


def test_a_home_that_is_not_there_takes_nothing(home: Path) -> None:
    usage = measure(home)
    assert (usage.used_bytes, usage.items) == (0, ())
    assert 0 < usage.free_bytes <= usage.total_bytes


def test_a_file_with_several_names_counts_once(home: Path) -> None:
    blob = fill(home / "blobs/sha256/aa/aaaa")
    for number in ("1", "2"):
        (home / "models/tiny" / number / "cpu").mkdir(parents=True)
        os.link(blob, home / "models/tiny" / number / "cpu" / "model.onnx")
    own = fill(home / "models/tiny/2/cpu/other")
    usage = measure(home)
    assert usage.kinds[StorageKind.VERSIONS].num_files == 2
    size = usage.used(StorageKind.VERSIONS) // 2
    assert item(usage.items, "tiny:1").used_bytes == size
    assert item(usage.items, "tiny:1").freed_bytes == 0, "the other version keeps the blob"
    second = item(usage.items, "tiny:2")
    assert (second.used_bytes, second.freed_bytes) == (2 * size, size)
    os.link(own, home.parent / "elsewhere")
    assert item(measure(home).items, "tiny:2").freed_bytes == 0, "a name outside the home keeps the file"


def test_what_a_version_costs_alone(home: Path, registry: Registry, publish: Publish) -> None:
    publish(text="x" * 5 * BLOCK)
    publish(text="y" * 5 * BLOCK)
    publish(text="z")
    first = item(registry.disk.usage().items, "tiny:1")
    assert first.used_bytes > first.freed_bytes == 5 * BLOCK, "the tokenizer is shared"
    before = registry.disk.usage().used(StorageKind.VERSIONS)
    registry.remove("tiny:1")
    assert before - registry.disk.usage().used(StorageKind.VERSIONS) == first.freed_bytes


@pytest.mark.skipif(sys.platform == "win32", reason="no blocks are known")
def test_holes_take_no_room(home: Path) -> None:
    path = fill(home / "jobs/job-1/log", BLOCK)
    with path.open("r+b") as file:
        file.truncate(100 << 20)
    used = measure(home).used(StorageKind.JOBS)
    if used > 50 << 20:
        pytest.skip("this file system has no holes")
    assert used < 1 << 20


def test_what_vanishes_meanwhile_is_left_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(home / "jobs/job-1/a")
    fill(home / "jobs/job-2/b")
    scandir = os.scandir

    def vanishing(folder: str) -> object:
        if str(folder).endswith("job-2"):
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr(walking.os, "scandir", vanishing)
    assert [each.name for each in measure(home).items] == ["job-1"]
    assert tree_bytes(home / "gone") == 0
    assert entries(home / "gone") == []


def test_links_are_not_followed(home: Path, tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", 1 << 20)
    (home / "files").mkdir(parents=True)
    (home / "files" / "file-1").symlink_to(outside)
    (home / "files" / "loop").symlink_to(home)
    assert measure(home).used_bytes < 1 << 16
