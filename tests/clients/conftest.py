"""OpenAI's own clients and a plain one, pointed at the real daemon with the real default model."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest

TIMEOUT_S = 120


@pytest.fixture(scope="session")
def client(real_daemon: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real_daemon}/v1", api_key="unused", max_retries=0, timeout=TIMEOUT_S) as client:
        yield client


@pytest.fixture(scope="session")
def http(real_daemon: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=real_daemon, timeout=TIMEOUT_S, trust_env=False) as client:
        yield client
