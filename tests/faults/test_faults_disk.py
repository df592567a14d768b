"""A disk that is really full: the daemon serves on, deleting works, and what fails says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from model_registry.artifacts import StagedVariant
from model_registry.disk_space.spare import SPARE_BYTES, keep_spare
from model_registry.records import Manifest, Precision
from model_registry.registry import open_registry
from tests.doubles.daemon_process import PROGRAM, environment, running_daemon

DISK_BYTES = 96 << 20
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
Fill = Callable[[], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK_BYTES."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root on Linux: run the tests in a container as root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def fill(disk: Path) -> Fill:
    """Takes every byte that is left."""

    def run() -> None:
        with (disk / "filler").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    return run


def publish(home: Path, name: str, num_bytes: int = 1 << 20) -> None:
    with open_registry(home) as registry, registry.staging() as staging:
        (staging / "model.onnx").write_bytes(os.urandom(num_bytes))
        manifest = Manifest(source="file:///x", importer="test", architecture="llama", context_length=8)
        registry.publish(name, manifest, [StagedVariant(Precision.INT8, "cpu", staging)])


def slmops(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    variables = {"SLMOPS_PORT": "1"} | variables
    command = [*PROGRAM, *arguments]
    return subprocess.run(command, env=environment(home, variables), cwd=home.parent, capture_output=True, text=True, timeout=120)


def test_a_model_can_be_removed_where_not_a_byte_is_free(disk: Path, fill: Fill) -> None:
    home = disk / "home"
    publish(home, "first")
    publish(home, "second")
    keep_spare(home)
    assert (home / "locks" / "spare").stat().st_size == SPARE_BYTES
    fill()
    assert shutil.disk_usage(disk).free == 0
    refused = slmops(home, "alias", "first:1", "golden")
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    assert "full" in refused.stderr
    removed = slmops(home, "rm", "first")
    assert removed.returncode == 0, removed.stderr
    listed = slmops(home, "list")
    assert ("second:1" in listed.stdout, "first" in listed.stdout) == (True, False)
    assert slmops(home, "verify", "second").returncode == 0
    (disk / "filler").unlink()
    assert slmops(home, "gc").returncode == 0
    assert (home / "locks" / "spare").stat().st_size == SPARE_BYTES, "it is there again for the next time"


def test_the_daemon_serves_on_and_deletes(disk: Path, fill: Fill, tmp_path: Path) -> None:
    home = disk / "home"
    publish(home, "first")
    keep_spare(home)
    with (
        running_daemon(home, "--engine", "fake", folder=tmp_path / "logs") as daemon,
        httpx.Client(base_url=daemon.url, timeout=60, trust_env=False) as http,
    ):
        upload = {"files": {"file": ("a.jsonl", b"x" * 100_000)}, "data": {"purpose": "fine-tune"}}
        stored = http.post("/v1/files", **upload)
        assert stored.status_code == 200, stored.text
        fill()
        refused = http.post("/v1/files", **upload)
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "out_of_disk")
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
        report = http.get("/admin/registry/disk").json()
        assert report["free_bytes"] < 1 << 20
        assert report["warnings"]
        assert http.delete(f"/v1/files/{stored.json()['id']}").status_code == 200
        assert slmops(home, "rm", "first").returncode == 0
        assert http.get("/health").status_code == 200
