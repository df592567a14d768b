"""The quick start of `pydantic-ai`."""

from __future__ import annotations

import asyncio

import pytest
from pydantic_ai import Agent, ModelHTTPError, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.quickstarts.scripts import (
    ASK_WEATHER,
    DESCRIBE_PARIS,
    HELLO,
    KEY,
    MODEL,
    PARIS,
    TOO_HOT,
    WEATHER,
    City,
    calls,
    get_weather,
)


@pytest.fixture
def model(url: str) -> OpenAIChatModel:
    return OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key=KEY))


def test_chat(model: OpenAIChatModel) -> None:
    assert asyncio.run(Agent(model).run(HELLO)).output == "Hello there"


def test_stream(model: OpenAIChatModel) -> None:
    async def run() -> list[str]:
        async with Agent(model).run_stream(HELLO) as stream:
            return [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]

    pieces = asyncio.run(run())
    assert "".join(pieces) == "Hello there"
    assert len(pieces) > 1


def test_error(model: OpenAIChatModel) -> None:
    with pytest.raises(ModelHTTPError, match="temperature") as refused:
        asyncio.run(Agent(model).run(HELLO, model_settings=TOO_HOT))
    assert refused.value.status_code == 400


def test_tools(model: OpenAIChatModel) -> None:
    assert WEATHER in asyncio.run(Agent(model, tools=[get_weather]).run(ASK_WEATHER)).output


def test_tools_streamed(model: OpenAIChatModel) -> None:
    async def run() -> str:
        async with Agent(model, tools=[get_weather]).run_stream(ASK_WEATHER) as stream:
            return await stream.get_output()

    assert WEATHER in asyncio.run(run())


def test_output_by_a_tool(model: OpenAIChatModel) -> None:
    agent = Agent(model, output_type=ToolOutput(City, name="describe"), retries=0)
    assert asyncio.run(agent.run(calls("describe", **PARIS.model_dump()))).output == PARIS


def test_output_by_a_schema(model: OpenAIChatModel) -> None:
    assert asyncio.run(Agent(model, output_type=NativeOutput(City), retries=0).run(DESCRIBE_PARIS)).output == PARIS
