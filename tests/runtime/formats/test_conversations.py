"""Conversations with tools as each family's template takes them, and as text where the template knows no tools."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runtime.protocol.request import ChatPrompt
from runtime.text.chat_template import ChatTemplate
from runtime.text.formats.conversation import in_user_turns
from runtime.text.formats.deepseek import DeepSeek
from runtime.text.formats.phi4 import Phi4
from runtime.text.formats.recognition import TOOL_FORMATS
from tests.runtime.formats.recorded_answers import Call, read

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
OTHER_FAMILIES = sorted(set(TOOL_FORMATS) - {"gemma", "phi4"})  # these teach in the first user turn, and beside the system message


def call(number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(number: int, text: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": text}


QUESTION = {"role": "user", "content": "How warm is it?"}
TWO_CALLS = {"role": "assistant", "content": "I look.", "tool_calls": [call(1, "weather", {"city": "Zürich"}), call(2, "now", {})]}
CONVERSATION = [
    QUESTION,
    TWO_CALLS,
    result(2, "12:00"),
    result(1, [{"type": "text", "text": "21"}, {"type": "text", "text": " °C"}]),
]


def plain(family: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    return TOOL_FORMATS[family].messages(messages, TOOLS if tools is None else tools, native=False)


def native(family: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return TOOL_FORMATS[family].messages(messages, TOOLS, native=True)


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_a_template_without_tools_gets_them_in_the_system_message(family: str) -> None:
    made, user = plain(family, [QUESTION])
    assert made["role"] == "system"
    assert '"name": "weather"' in made["content"]
    assert user == QUESTION
    extended, _ = plain(family, [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, QUESTION])
    assert extended["content"] == f"Be brief.\n\n{made['content']}"


@pytest.mark.parametrize("family", sorted(TOOL_FORMATS))
def test_a_call_that_was_made_is_written_as_the_family_would(family: str) -> None:
    written = next(turn["content"] for turn in plain(family, CONVERSATION) if turn["role"] == "assistant")
    assert read(TOOL_FORMATS[family].parser(), [written.removeprefix("I look.\n")]).calls == [
        Call("weather", '{"city": "Zürich"}'),
        Call("now", "{}"),
    ]


@pytest.mark.parametrize("family", sorted(TOOL_FORMATS))
@pytest.mark.parametrize("tools", [TOOLS, []], ids=["tools", "no tools"])
def test_turns_alternate_and_are_text(family: str, tools: list[dict[str, Any]]) -> None:
    turns = [turn for turn in plain(family, CONVERSATION, tools) if turn["role"] != "system"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert all(isinstance(turn["content"], str) and "tool_calls" not in turn for turn in turns)
    assert re.search(r"12:00(?s:.*)21 °C", turns[-1]["content"])


@pytest.mark.parametrize("family", sorted(TOOL_FORMATS))
@pytest.mark.parametrize("is_native", [False, True])
def test_without_tools_nothing_is_taught(family: str, is_native: bool) -> None:
    assert TOOL_FORMATS[family].messages([QUESTION], [], native=is_native) == [QUESTION]


@pytest.mark.parametrize("family", sorted(TOOL_FORMATS))
@pytest.mark.parametrize("is_native", [False, True])
def test_the_callers_messages_stay_as_they_are(family: str, is_native: bool) -> None:
    before = repr(CONVERSATION)
    TOOL_FORMATS[family].messages(CONVERSATION, TOOLS, native=is_native)
    assert repr(CONVERSATION) == before


@pytest.mark.parametrize("family", ["hermes", "mistral", "deepseek", "generic"])
def test_native_results_carry_the_name_of_their_tool(family: str) -> None:
    names = [message["name"] for message in native(family, CONVERSATION) if message["role"] == "tool"]
    assert names == ["now", "weather"]


def test_an_empty_list_of_calls_is_no_call() -> None:
    assert native("hermes", [{"role": "assistant", "content": "Hi", "tool_calls": []}]) == [{"role": "assistant", "content": "Hi"}]


def test_llama_makes_one_call_per_turn_with_its_result_behind_it() -> None:
    messages = native("llama3", [*CONVERSATION, QUESTION])
    shown = [message.get("tool_call_id") or [call["id"] for call in message.get("tool_calls", [])] for message in messages]
    assert shown == [[], ["call_1"], "call_1", ["call_2"], "call_2", []]


def test_mistral_ids_are_nine_letters_and_digits_and_still_belong_together() -> None:
    _, calls, now, weather = native("mistral", CONVERSATION)
    ids = [call["id"] for call in calls["tool_calls"]]
    assert all(re.fullmatch(r"[A-Za-z0-9]{9}", id_) for id_ in ids)
    assert ids == [weather["tool_call_id"], now["tool_call_id"]]
    kept = {"role": "tool", "tool_call_id": "VvvODy9mT", "content": "x"}
    assert native("mistral", [kept]) == [kept]


def test_deepseek_templates_that_join_texts_get_arguments_as_text() -> None:
    source = "{% for m in messages %}{% for c in m.tool_calls %}{{ 'A' + c['function']['arguments'] }}{% endfor %}{% endfor %}"
    messages = DeepSeek(arguments_as_text=True).messages(CONVERSATION, TOOLS, native=True)
    assert ChatTemplate(source, {}).render(ChatPrompt(messages=messages)) == 'A{"city": "Zürich"}A{}'
    kept = DeepSeek(arguments_as_text=False).messages(CONVERSATION, TOOLS, native=True)
    assert kept[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Zürich"}


def test_phi4_takes_tools_beside_the_system_message_and_results_as_turns_of_the_tool() -> None:
    system, _, called, results = native("phi4", CONVERSATION)
    assert system["tools"] == '[{"name": "weather", "parameters": {"type": "object"}}]'
    assert called["content"].startswith('I look.\n<|tool_call|>[{"name": "weather", "arguments": {"city": "Zürich"}}, ')
    assert results == {"role": "tool", "content": "12:00\n21 °C"}
    [reported, _] = native("phi4", [{"role": "system", "content": "Be brief."}, QUESTION])
    assert reported == {"role": "system", "content": "Be brief.", "tools": system["tools"]}
    assert "functools[" in Phi4(functools=True).messages(CONVERSATION, TOOLS, native=True)[2]["content"]


def test_gemma_is_taught_in_the_first_user_turn() -> None:
    system, user = plain("gemma", [{"role": "system", "content": "Be brief."}, QUESTION])
    assert system["content"] == "Be brief."
    assert user["content"].endswith("\n\nHow warm is it?")
    assert '"name": "weather"' in user["content"]


def test_generic_calls_are_explained_also_to_templates_that_write_tools() -> None:
    explained, *_ = native("generic", CONVERSATION)
    assert "tool_calls" in explained["content"]
    assert "weather" not in explained["content"]


SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "Warm."}
MERGED = {"role": "user", "content": "Be brief.\n\nHow warm is it?"}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([SYSTEM, QUESTION, ANSWER], [MERGED, ANSWER]),
        ([SYSTEM, {"role": "developer", "content": [{"type": "text", "text": "In French."}]}, QUESTION], None),
        ([SYSTEM], [{"role": "user", "content": "Be brief."}]),
        ([SYSTEM, ANSWER], [{"role": "user", "content": "Be brief."}, ANSWER]),
        ([QUESTION, ANSWER, SYSTEM, QUESTION], [QUESTION, ANSWER, MERGED]),
        ([QUESTION, SYSTEM], [{"role": "user", "content": "How warm is it?\n\nBe brief."}]),
        ([SYSTEM, {"role": "user", "content": [{"type": "text", "text": "How warm is it?"}]}], [MERGED]),
        ([QUESTION, ANSWER], [QUESTION, ANSWER]),
        ([], []),
    ],
)
def test_instructions_stand_in_the_users_turns(messages: list[dict[str, Any]], expected: list[dict[str, Any]] | None) -> None:
    both = [{"role": "user", "content": "Be brief.\n\nIn French.\n\nHow warm is it?"}]
    assert in_user_turns(messages) == (both if expected is None else expected)
