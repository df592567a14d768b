"""The quick start of `openai` for Python: chats, streams, tools, answers of a type; sync and async."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

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
    Size,
    calls,
    get_weather,
)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=user(HELLO))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hello there", "stop")


def test_stream(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model=MODEL, messages=user(HELLO), stream=True)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "Hello there"


def test_async_chat_and_stream(url: str) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            answer = await client.chat.completions.create(model=MODEL, messages=user(HELLO))
            assert answer.choices[0].message.content == "Hello there"
            chunks = await client.chat.completions.create(model=MODEL, messages=user(HELLO), stream=True)
            assert "".join([choice.delta.content or "" async for chunk in chunks for choice in chunk.choices]) == "Hello there"

    asyncio.run(run())


def test_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=MODEL, messages=user(HELLO), **TOO_HOT)
    assert refused.value.param == "temperature"


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_tools(client: openai.OpenAI, choice: str) -> None:
    messages = user(ASK_WEATHER)
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL], tool_choice=choice)
    assert answer.choices[0].finish_reason == "tool_calls"
    message = answer.choices[0].message
    (call,) = message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    result = get_weather(**json.loads(call.function.arguments))
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    final = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL])
    assert final.choices[0].finish_reason == "stop"
    assert WEATHER in (final.choices[0].message.content or "")


def test_tools_streamed(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=user(ASK_WEATHER), tools=[WEATHER_TOOL]) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        (choice,) = stream.get_final_completion().choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert "".join(pieces) == call.function.arguments
    assert len(pieces) > 1


def test_a_named_tool_into_its_type(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=user(calls("City", **PARIS.model_dump())),
        tools=[openai.pydantic_function_tool(City)],
        tool_choice={"type": "function", "function": {"name": "City"}},
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == PARIS


def test_structured_output(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=user(DESCRIBE_PARIS), response_format=City)
    assert answer.choices[0].message.parsed == PARIS


def test_structured_output_holds_whatever_the_model_says(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=user("[[count: 3]]"), response_format=Size)
    assert isinstance(answer.choices[0].message.parsed, Size)


def test_structured_output_streamed(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=user(DESCRIBE_PARIS), response_format=City) as stream:
        assert any(event.type == "content.delta" for event in stream)
        assert stream.get_final_completion().choices[0].message.parsed == PARIS


def test_structured_output_async(url: str) -> None:
    async def run() -> City | None:
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            answer = await client.chat.completions.parse(model=MODEL, messages=user(DESCRIBE_PARIS), response_format=City)
            return answer.choices[0].message.parsed

    assert asyncio.run(run()) == PARIS
