"""Fixtures of the gateway's tests: settings that nothing outside the test can change, and a live server with a real worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.settings.daemon import Settings
from tests.doubles.live_server import LiveServer
from tests.loop_guard import nothing_blocks_the_loop as nothing_blocks_the_loop


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no file of the person who runs the tests gets in."""
    for name in os.environ:
        if name.upper().startswith("SLMOPS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        return Settings(**({"engine": "fake", "home": tmp_path / "home", "port": 0} | changes))

    return make


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that a whole module shares."""
    settings = Settings(engine="fake", home=tmp_path_factory.mktemp("home"), port=0, num_slots=4, max_waiting=8)
    with LiveServer(settings) as server:
        yield server


@pytest.fixture
def http(live: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.url, timeout=30, trust_env=False) as client:
        yield client
