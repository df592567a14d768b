"""Fixtures of the contract's tests: a real server with the fake model and a real worker."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.contract.document import contract_settings
from tests.doubles.live_server import LiveServer
from tests.loop_guard import nothing_blocks_the_loop as nothing_blocks_the_loop


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(contract_settings(tmp_path_factory.mktemp("home"))) as server:
        assert httpx.get(f"{server.url}/ready").status_code == 200, "the model did not load"
        yield server


@pytest.fixture(scope="module")
def http(live: LiveServer) -> Iterator[httpx.Client]:
    """Its timeout is the proof that nothing hangs."""
    with httpx.Client(base_url=live.url, timeout=20, trust_env=False) as client:
        yield client
