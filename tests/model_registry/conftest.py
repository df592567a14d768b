"""Homes, registries and a local server for the registry's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model_registry.artifacts import StagedVariant
from model_registry.records import Manifest, ModelVersion, Precision
from model_registry.registry import Registry, open_registry
from model_registry.sources.package_index import INDEX_VARIABLES
from tests.doubles.registry_http import LocalServer, local_server

Publish = Callable[..., ModelVersion]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    with open_registry(home) as opened:
        yield opened


@pytest.fixture
def publish(registry: Registry) -> Publish:
    """Publish a version whose content is the given text, beside a file that all versions share."""

    def run(name: str = "tiny", text: str = "weights", **manifest: object) -> ModelVersion:
        with registry.staging() as staging:
            folder = staging / "model"
            (folder / "sub").mkdir(parents=True)
            (folder / "model.onnx").write_text(text)
            (folder / "sub" / "tokenizer.json").write_text("shared")
            values = {"source": "file:///x", "importer": "test", "architecture": "llama", "context_length": 8, **manifest}
            return registry.publish(name, Manifest(**values), [StagedVariant(Precision.INT8, "cpu", folder)])

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    """Both the package index and the hub of this test; no proxy and no token get in the way."""
    for name in (*INDEX_VARIABLES, "HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with local_server() as running:
        monkeypatch.setenv("SLMOPS_INDEX_URL", f"{running.url}/simple")
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running
