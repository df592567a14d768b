"""Where the quick starts find their server. They run in their clients' own environments, which hold no slmops."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def url() -> str:
    """The base URL, with /v1, of a server with the fake engine."""
    return os.environ["SLMOPS_TEST_URL"] + "/v1"
