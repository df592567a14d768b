"""`slmops foundry list`: the real SDK with a catalog out of reach, and a cache as Foundry Local lays it out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Slmops

TINY = "tiny-instruct-generic-cpu:3"


@pytest.fixture
def cache(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds one model."""
    folder = tmp_path / "cache" / "Microsoft" / "tiny-instruct-generic-cpu-3"
    folder.mkdir(parents=True)
    (folder / "genai_config.json").write_text("{}")
    (folder / "inference_model.json").write_text(json.dumps({"Name": TINY}))
    monkeypatch.setenv("SLMOPS_FOUNDRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SLMOPS_FOUNDRY_CATALOG_URL", "http://127.0.0.1:1/asset-gallery/v1.0/models")
    for name in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):  # what the SDK's start sets is set back
        monkeypatch.setenv(name, "1")
    return tmp_path / "cache"


@pytest.mark.api
@pytest.mark.usefixtures("cache")
def test_without_network_the_cached_models_are_listed_and_why(slmops: Slmops) -> None:
    run = slmops("foundry", "list")
    assert run.code == 0
    heading, line = run.out.splitlines()
    assert heading.split() == ["ALIAS", "ID", "DEVICE", "SIZE", "LICENCE", "CACHED"]
    assert line.split()[1:3] == [TINY, "cpu"]
    assert line.split()[-1] == "yes"
    assert "cannot be read" in run.err
    assert "network" in run.err


def test_as_json(slmops: Slmops, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_OFFLINE", "true")
    run = slmops("foundry", "list", "--json")
    assert json.loads(run.out) == [
        {
            "alias": "tiny-instruct-generic-cpu",
            "id": TINY,
            "device": "cpu",
            "size_bytes": sum(path.stat().st_size for path in cache.rglob("*.json")),
            "licence": None,
            "cached": True,
            "folder": str(cache / "Microsoft" / "tiny-instruct-generic-cpu-3"),
        }
    ]
    assert "`offline` is set" in run.err
