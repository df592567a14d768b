"""Tool calls and answers of a type through OpenAI's own client, with the real model: whatever it knows, the form is right."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import openai
import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from tests.clients.conversations import MODEL, user

QUESTION = user("What is the weather in Paris, and what time is it in Rome?")


class Place(BaseModel):
    name: str
    kind: Literal["city", "river", "mountain"]
    is_in_europe: bool


def tool(name: str, **properties: Any) -> Any:
    parameters = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": f"Use it to {name}.", "parameters": parameters}}


TOOLS = [
    tool("get_weather", city={"enum": ["Paris", "Rome", "Oslo"]}, days={"type": "integer", "minimum": 1, "maximum": 9}),
    tool("get_time", city={"type": "string", "maxLength": 20}),
]
SCHEMAS = {each["function"]["name"]: each["function"]["parameters"] for each in TOOLS}


def check(call: Any) -> None:
    Draft202012Validator(SCHEMAS[call.function.name]).validate(json.loads(call.function.arguments))


@pytest.mark.parametrize("temperature", [0, 1])
def test_a_required_call_parses_and_validates(client: openai.OpenAI, temperature: int) -> None:
    requested: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "temperature": temperature, "seed": 3, "max_tokens": 200}
    answer = client.chat.completions.create(**requested, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or []
    check(call)


def test_a_required_call_says_the_same_in_a_stream(client: openai.OpenAI) -> None:
    requested: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 200, "tools": TOOLS}
    requested |= {"tool_choice": "required", "parallel_tool_calls": False}
    whole = client.chat.completions.create(**requested).choices[0].message.tool_calls or []
    with client.chat.completions.stream(**requested) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls or []
    assert [call.function.arguments for call in streamed] == [call.function.arguments for call in whole]
    assert [call.function.name for call in streamed] == [call.function.name for call in whole]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_named_call_is_of_that_tool(client: openai.OpenAI, name: str) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=1,
        seed=5,
        max_tokens=200,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": name}},
    )
    calls = answer.choices[0].message.tool_calls or []
    assert {call.function.name for call in calls} == {name}
    for call in calls:
        check(call)


def test_a_result_goes_back_in(client: openai.OpenAI) -> None:
    call: Any = {"id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": '{"city": "Rome"}'}}
    conversation: list[Any] = [
        *user("What time is it in Rome?"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It is 17:45 in Rome."},
    ]
    answer = client.chat.completions.create(
        model=MODEL, messages=conversation, tools=TOOLS, tool_choice="none", temperature=0, max_tokens=40
    )
    assert answer.choices[0].message.tool_calls is None
    assert "17:45" in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("temperature", [0, 1])
def test_an_answer_is_of_the_requested_type(client: openai.OpenAI, temperature: int) -> None:
    """The text is cut at its longest by the schema, not by max_tokens: a small model does not always find an end."""
    answer = client.chat.completions.parse(
        model=MODEL, messages=user("Describe Paris."), temperature=temperature, seed=7, response_format=Place, max_tokens=300
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Place)


def test_eight_types_at_once_beside_free_answers(real_daemon: str) -> None:
    async def run() -> tuple[list[Any], list[Any]]:
        async with openai.AsyncOpenAI(base_url=f"{real_daemon}/v1", api_key="unused", max_retries=0, timeout=120) as client:
            places = [
                client.chat.completions.parse(
                    model=MODEL, messages=user(f"Describe {name}."), temperature=0, response_format=Place, max_tokens=300
                )
                for name in ("Paris", "Rome", "the Rhine", "Mont Blanc")
            ]
            free = [client.chat.completions.create(model=MODEL, messages=user("Count."), max_tokens=20) for _ in range(4)]
            return list(await asyncio.gather(*places)), list(await asyncio.gather(*free))

    places, free = asyncio.run(run())
    assert all(isinstance(answer.choices[0].message.parsed, Place) for answer in places)
    assert all(answer.choices[0].message.content for answer in free)


def test_an_answer_cut_by_max_tokens_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=user("Describe Paris."), response_format=Place, max_tokens=4)


def test_a_schema_that_cannot_be_held_is_refused_by_name(client: openai.OpenAI) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as refused:
        client.chat.completions.create(
            model=MODEL,
            messages=user("Count."),
            response_format={"type": "json_schema", "json_schema": {"name": "numbers", "schema": schema}},
        )
    assert (refused.value.param or "").startswith("response_format")
