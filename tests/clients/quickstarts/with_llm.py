"""The quick start of `llm`: slmops as an extra OpenAI-compatible model, from Python and from the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import llm
import pytest

from tests.clients.quickstarts.scripts import ASK_WEATHER, DESCRIBE_PARIS, HELLO, MODEL, PARIS, WEATHER, City, get_weather


@pytest.fixture(autouse=True)
def user_path(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder of settings, with the one file that adds a model."""
    settings = f"- model_id: slmops\n  model_name: {MODEL}\n  api_base: {url}\n  supports_schema: true\n  supports_tools: true\n"
    (tmp_path / "extra-openai-models.yaml").write_text(settings)
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return tmp_path


def test_chat() -> None:
    assert llm.get_model("slmops").prompt(HELLO, stream=False).text() == "Hello there"


def test_stream() -> None:
    pieces = list(llm.get_model("slmops").prompt(HELLO))
    assert "".join(pieces) == "Hello there"
    assert len(pieces) > 1


def test_async() -> None:
    async def run() -> str:
        return await llm.get_async_model("slmops").prompt(HELLO).text()

    assert asyncio.run(run()) == "Hello there"


def test_command_line(user_path: Path) -> None:
    command = [sys.executable, "-m", "llm", "--model", "slmops", "--no-log", HELLO]
    expected_text = subprocess.run(
        command, env={**os.environ, "LLM_USER_PATH": str(user_path)}, capture_output=True, text=True, check=True
    )
    assert expected_text.stdout == "Hello there\n"


def test_error() -> None:
    with pytest.raises(Exception, match="max_tokens"):
        llm.get_model("slmops").prompt(HELLO, max_tokens=-1).text()


@pytest.mark.parametrize("stream", [False, True])
def test_tools(stream: bool) -> None:
    answer = llm.get_model("slmops").chain(ASK_WEATHER, tools=[get_weather], stream=stream)
    assert WEATHER in answer.text()


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output(stream: bool) -> None:
    answer = llm.get_model("slmops").prompt(DESCRIBE_PARIS, schema=City, stream=stream)
    assert City(**json.loads(answer.text())) == PARIS
