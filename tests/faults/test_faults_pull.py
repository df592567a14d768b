"""Pulls that fail, by the command line: one line has the reason, nothing half-written stays, and existing models still work."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.cli.program import execute
from tests.doubles.daemon_process import PROGRAM, environment, running_daemon
from tests.doubles.registry_graphs import write_genai_folder
from tests.doubles.tiny_gguf import Tiny, write_gguf

DISK_BYTES = 24 << 20
LARGE = Tiny(hidden=512, ffn=4096, layers=4, heads=8, kv_heads=8, head_size=64)  # more than the disk takes


def corrupt_gguf(folder: Path) -> Path:
    source = write_gguf(folder / "corrupt.gguf", Tiny())
    source.write_bytes(source.read_bytes()[:5000])
    return source


def cut_onnx(folder: Path) -> Path:
    source = write_genai_folder(folder / "cut")
    graph = source / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-40])
    return source


def no_tokenizer(folder: Path) -> Path:
    source = write_genai_folder(folder / "mute")
    (source / "tokenizer.json").unlink()
    return source


def evil_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("../../escaped", "x")
    return folder / "evil.zip"


def evil_tar(folder: Path) -> Path:
    with tarfile.open(folder / "evil.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("model/../../../escaped")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    return folder / "evil.tar.gz"


def missing(folder: Path) -> Path:
    return folder / "missing.gguf"


def files_below(folder: Path) -> list[str]:
    kept = ("locks", "registry.db")
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if not str(path).startswith(kept))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (corrupt_gguf, "cut off|truncated|ends"),
        (cut_onnx, "cut off"),
        (no_tokenizer, "tokenizer.json"),
        (evil_zip, "leaves|outside"),
        (evil_tar, "leaves|outside"),
        (missing, "missing.gguf"),
    ],
)
def test_a_bad_source_is_one_line_and_leaves_nothing(
    make: Callable[[Path], Path], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources, home = tmp_path / "a" / "sources", tmp_path / "b" / "home"
    sources.mkdir(parents=True)
    monkeypatch.setenv("SLMOPS_HOME", str(home))
    source = make(sources)
    assert execute(["pull", str(source)]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(why, line), line
    assert files_below(home) == []
    assert list(tmp_path.rglob("escaped")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
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


def test_a_full_disk_is_named_and_the_daemon_lives_on(small_disk: Path, tmp_path: Path) -> None:
    home = small_disk / "home"

    def pull(source: Path) -> subprocess.CompletedProcess[str]:
        command = [*PROGRAM, "pull", str(source), "--precision", "fp32"]
        return subprocess.run(command, env=environment(home, {}), cwd=tmp_path, capture_output=True, text=True)

    first = pull(write_gguf(tmp_path / "first.gguf", Tiny(context=512)))
    assert first.returncode == 0, first.stderr
    before = files_below(home)
    with running_daemon(home, "--engine", "onnx", "--model", "first", folder=tmp_path / "logs") as daemon:
        daemon.wait_until_ready()
        full = pull(write_gguf(tmp_path / "large.gguf", LARGE))
        assert full.returncode == 1
        (line,) = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
        assert "min_free_bytes" in line
        assert "Traceback" not in full.stderr
        assert files_below(home) == before
        assert len(daemon.workers()) == 1
        daemon.wait_until_ready()
    second = pull(write_gguf(tmp_path / "second.gguf", Tiny(context=512, layers=1)))
    assert second.returncode == 0, second.stderr
