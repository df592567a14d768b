"""How a model writes calls and thoughts, as settings say it: in slmops.toml, by a reload, and in its answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.settings.daemon import Settings
from server.settings.models import ModelSettings
from server.settings.toml_file import InvalidSettings
from tests.doubles.live_server import LiveServer, chat_body, error_of, events_of

CHAT = "/v1/chat/completions"
THOUGHT = "[[reply: <think>two and two</think>four]]"


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that separates its model's reasoning from the answer."""
    home = tmp_path_factory.mktemp("home")
    settings = Settings(
        engine="fake", home=home, port=0, models={"smollm2-135m": ModelSettings(reasoning_format="think", tool_format="hermes")}
    )
    with LiveServer(settings) as server:
        yield server


@pytest.fixture
def http(thinking: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=thinking.url, timeout=30, trust_env=False) as client:
        yield client


def test_formats_are_set_per_model(http: httpx.Client) -> None:
    (model,) = http.get("/admin/models").json()["data"]
    assert (model["tool_format"], model["reasoning_format"]) == ("hermes", "think")


def test_a_thought_is_returned_beside_the_answer(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=chat_body(THOUGHT)).json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("two and two", "four")
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == len("<think>two and two</think>")


def test_a_thought_is_streamed_as_such(http: httpx.Client) -> None:
    with http.stream("POST", CHAT, json=chat_body(THOUGHT, stream=True)) as response:
        *chunks, _ = events_of(response)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "two and two"
    assert "".join(delta.get("content", "") for delta in deltas) == "four"
    kinds = [next(iter(delta)) for delta in deltas[1:-1]]
    assert kinds == sorted(kinds, reverse=True), "the thought comes first"


def test_a_thought_can_be_left_out(http: httpx.Client) -> None:
    message = http.post(CHAT, json=chat_body(THOUGHT, include_reasoning=False)).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "four", "refusal": None}


def test_the_text_of_completions_is_left_as_it_is(http: httpx.Client) -> None:
    body = {"prompt": f"<|user|>{THOUGHT}<|assistant|>", "max_tokens": 60}
    assert http.post("/v1/completions", json=body).json()["choices"][0]["text"] == "<think>two and two</think>four"


def test_a_thought_ends_with_its_budget(http: httpx.Client) -> None:
    body = chat_body("[[reply: <think>round and round and round</think>yes]]", thinking_token_budget=10, max_tokens=100)
    answer = http.post(CHAT, json=body).json()
    message = answer["choices"][0]["message"]
    assert len(message["reasoning_content"]) <= 10
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_a_reload_changes_them(http: httpx.Client) -> None:
    changed = http.post("/admin/models/smollm2-135m/reload", json={"reasoning_format": "none"}).json()
    assert changed["reasoning_format"] is None
    try:
        message = http.post(CHAT, json=chat_body(THOUGHT)).json()["choices"][0]["message"]
        assert message["content"] == "<think>two and two</think>four"
    finally:
        assert http.post("/admin/models/smollm2-135m/reload", json={"reasoning_format": "think"}).status_code == 200


@pytest.mark.parametrize("field", ["tool_format", "reasoning_format"])
def test_an_unknown_format_is_refused_with_those_there_are(http: httpx.Client, field: str) -> None:
    error = error_of(http.post("/admin/models/smollm2-135m/reload", json={field: "morse"}), 400)
    assert error["param"] == field
    assert "none" in error["message"]
    Path("slmops.toml").write_text(f'[models."smollm2-135m"]\n{field} = "morse"\n')
    with pytest.raises(InvalidSettings, match="it is one of"):
        Settings()
