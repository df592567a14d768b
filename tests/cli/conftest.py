"""A home of its own for every command, and a way to run one: in this process, with what it printed."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from model_registry.artifacts import StagedVariant
from model_registry.records import Manifest, ModelVersion, Precision
from model_registry.registry import open_registry
from server.cli.program import execute


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str


Slmops = Callable[..., Run]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SLMOPS_HOME, an empty current folder, and no other slmops variable."""
    for name in [name for name in os.environ if name.startswith("SLMOPS_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SLMOPS_HOME", str(home))
    monkeypatch.setenv("SLMOPS_PORT", "1")  # nothing listens there: no command meets a daemon by accident
    return home


@pytest.fixture
def slmops(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Slmops:
    """Nothing is piped in."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))

    def run(*arguments: str) -> Run:
        capsys.readouterr()
        code = execute(arguments)
        printed = capsys.readouterr()
        return Run(code, printed.out, printed.err)

    return run


@pytest.fixture
def publish(home: Path) -> Callable[..., ModelVersion]:
    """Registers a version whose only file holds `content`."""

    def make(name: str, content: str = "weights") -> ModelVersion:
        with open_registry(home) as registry, registry.staging() as folder:
            (folder / "model.onnx").write_text(content)
            manifest = Manifest(
                source=f"file:///{name}",
                importer="test",
                architecture="llama",
                context_length=2048,
                licence="Apache-2.0",
                metrics={"perplexity": 29.37},
            )
            return registry.publish(name, manifest, [StagedVariant(Precision.INT8, "cpu", folder)])

    return make
