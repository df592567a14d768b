"""The quick start of `langchain-openai`."""

from __future__ import annotations

import asyncio

import openai
import pytest
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

from tests.clients.quickstarts.scripts import (
    ASK_WEATHER,
    DESCRIBE_PARIS,
    HELLO,
    KEY,
    MODEL,
    PARIS,
    WEATHER,
    City,
    calls,
    get_weather,
)


@pytest.fixture(scope="module")
def chat(url: str) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=url, api_key=KEY, max_retries=0)


def test_chat(chat: ChatOpenAI) -> None:
    assert chat.invoke(HELLO).text == "Hello there"


def test_stream(chat: ChatOpenAI) -> None:
    pieces = [chunk.text for chunk in chat.stream(HELLO)]
    assert "".join(pieces) == "Hello there"
    assert len(pieces) > 1


def test_async(chat: ChatOpenAI) -> None:
    assert asyncio.run(chat.ainvoke(HELLO)).text == "Hello there"


def test_error(url: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ChatOpenAI(model=MODEL, base_url=url, api_key=KEY, max_retries=0, temperature=9).invoke(HELLO)
    assert refused.value.param == "temperature"


@pytest.mark.parametrize("choice", ["auto", "any", "get_weather"])
def test_tools(chat: ChatOpenAI, choice: str) -> None:
    messages: list[BaseMessage] = [HumanMessage(ASK_WEATHER)]
    message = chat.bind_tools([get_weather], tool_choice=choice).invoke(messages)
    (call,) = message.tool_calls
    messages += [message, ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"])]
    assert WEATHER in chat.bind_tools([get_weather]).invoke(messages).text


def test_tools_streamed(chat: ChatOpenAI) -> None:
    first, *others = chat.bind_tools([get_weather]).stream(ASK_WEATHER)
    for chunk in others:
        first += chunk
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})


@pytest.mark.parametrize(
    ("method", "expected_text"),
    [
        ("json_schema", DESCRIBE_PARIS),
        ("json_mode", DESCRIBE_PARIS),
        ("function_calling", calls("City", **PARIS.model_dump())),
    ],
)
def test_structured_output(chat: ChatOpenAI, method: str, expected_text: str) -> None:
    assert chat.with_structured_output(City, method=method).invoke(expected_text) == PARIS
