"""The quick start of `litellm`, with slmops as an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
import pytest

from tests.clients.quickstarts.scripts import (
    ASK_WEATHER,
    DESCRIBE_PARIS,
    HELLO,
    KEY,
    MODEL,
    PARIS,
    TOO_HOT,
    WEATHER,
    WEATHER_TOOL,
    City,
    get_weather,
)

# Its types, which pydantic warns of, and answers of another shape than it declares.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
]


@pytest.fixture(scope="module")
def server(url: str) -> dict[str, Any]:
    litellm.telemetry = False
    return {"model": f"openai/{MODEL}", "api_base": url, "api_key": KEY, "num_retries": 0}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_chat(server: dict[str, Any]) -> None:
    answer = litellm.completion(**server, messages=user(HELLO))
    assert answer.choices[0].message.content == "Hello there"
    assert answer.usage.completion_tokens > 1


def test_stream(server: dict[str, Any]) -> None:
    chunks = litellm.completion(**server, messages=user(HELLO), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there"


def test_async(server: dict[str, Any]) -> None:
    answer = asyncio.run(litellm.acompletion(**server, messages=user(HELLO)))
    assert answer.choices[0].message.content == "Hello there"


def test_error(server: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**server, messages=user(HELLO), **TOO_HOT)


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_tools(server: dict[str, Any], choice: str) -> None:
    messages = user(ASK_WEATHER)
    answer = litellm.completion(**server, messages=messages, tools=[WEATHER_TOOL], tool_choice=choice)
    assert answer.choices[0].finish_reason == "tool_calls"
    message = answer.choices[0].message
    (call,) = message.tool_calls
    result = get_weather(**json.loads(call.function.arguments))
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    assert WEATHER in litellm.completion(**server, messages=messages, tools=[WEATHER_TOOL]).choices[0].message.content


def test_tools_streamed(server: dict[str, Any]) -> None:
    messages = user(ASK_WEATHER)
    chunks = list(litellm.completion(**server, messages=messages, tools=[WEATHER_TOOL], stream=True))
    (call,) = litellm.stream_chunk_builder(chunks, messages=messages).choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})


def test_structured_output(server: dict[str, Any]) -> None:
    answer = litellm.completion(**server, messages=user(DESCRIBE_PARIS), response_format=City)
    assert City.model_validate_json(answer.choices[0].message.content) == PARIS
