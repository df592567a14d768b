"""Tool calls over HTTP with a real worker: a fake model that calls, whole and streamed, and gets the results."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from runtime.text.formats.answer_parser import answer_parser
from runtime.text.formats.recognition import tool_format_by_name
from server.inference.answer_parts import joined
from tests.doubles.live_server import chat_body, error_of, events_of

CHAT = "/v1/chat/completions"
FUNCTION = {
    "name": "add",
    "description": "Adds two numbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = '{"tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}]}'
TWO = '{"tool_calls": [{"name": "add", "arguments": {"a": 1, "b": 2}}, {"name": "add", "arguments": {"a": 3, "b": 4}}]}'


def choice_of(http: httpx.Client, body: dict[str, Any]) -> Any:
    response = http.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def test_a_call(http: httpx.Client) -> None:
    choice = choice_of(http, chat_body(f"[[reply: {CALL}]]", tools=TOOLS))
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["id"].startswith("call_")
    assert (call["type"], call["function"]["name"]) == ("function", "add")
    assert json.loads(call["function"]["arguments"]) == {"a": 1, "b": 2}
    assert choice["message"]["content"] is None


def test_several_calls_have_ids_of_their_own(http: httpx.Client) -> None:
    calls = choice_of(http, chat_body(f"[[reply: {TWO}]]", tools=TOOLS))["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"])["a"] for call in calls] == [1, 3]
    assert calls[0]["id"] != calls[1]["id"]


def test_a_streamed_call(http: httpx.Client) -> None:
    with http.stream("POST", CHAT, json=chat_body(f"[[reply: {TWO}]]", tools=TOOLS, stream=True)) as response:
        *chunks, done = events_of(response)
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
    begun = [piece for piece in pieces if "id" in piece]
    assert [(piece["index"], piece["type"], piece["function"]["name"]) for piece in begun] == [
        (0, "function", "add"),
        (1, "function", "add"),
    ]
    arguments = {0: "", 1: ""}
    for piece in pieces:
        arguments[piece["index"]] += piece["function"]["arguments"]
    assert [json.loads(text)["b"] for text in arguments.values()] == [2, 4]
    assert len(pieces) > 10, "the arguments come as they are made"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_function_call_of_the_older_form(http: httpx.Client) -> None:
    choice = choice_of(http, chat_body(f"[[reply: {CALL}]]", functions=[FUNCTION]))
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "add"
    assert json.loads(choice["message"]["function_call"]["arguments"]) == {"a": 1, "b": 2}


@pytest.mark.parametrize("fields", [{}, {"tools": TOOLS, "tool_choice": "none"}, {"tools": []}])
def test_what_looks_like_a_call_is_text_where_nothing_can_be_called(http: httpx.Client, fields: dict[str, Any]) -> None:
    choice = choice_of(http, chat_body(f"[[reply: {CALL}]]", **fields))
    assert (choice["message"]["content"], choice["finish_reason"]) == (CALL, "stop")
    assert "tool_calls" not in choice["message"]


def test_an_answer_without_a_call_is_text(http: httpx.Client) -> None:
    choice = choice_of(http, chat_body("[[reply: hello]]", tools=TOOLS))
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hello", "stop")


def test_a_call_that_was_cut_keeps_what_there_is(http: httpx.Client) -> None:
    choice = choice_of(http, chat_body(f"[[reply: {CALL}]]", tools=TOOLS, max_tokens=len(CALL) - 12))
    assert choice["finish_reason"] == "length"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["arguments"].startswith('{"a"')


def test_results_go_back_to_the_model(http: httpx.Client) -> None:
    """The fake model repeats the last user turn, and a tool's result is such a turn."""
    requested = chat_body("add", tools=TOOLS)
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    requested["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "the sum is 3"},
    ]
    assert "the sum is 3" in choice_of(http, requested)["message"]["content"]


def test_log_probabilities_of_a_call_are_whole(http: httpx.Client) -> None:
    body = chat_body(f"[[reply: {CALL}]]", tools=TOOLS, logprobs=True)
    whole = choice_of(http, body)["logprobs"]["content"]
    with http.stream("POST", CHAT, json=body | {"stream": True}) as response:
        *chunks, _ = events_of(response)
    reported = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [token for each in reported if each for token in each["content"]] == whole
    assert bytes(byte for token in whole for byte in token["bytes"]).decode() == CALL


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "subtract"}}}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "not a name"}}]}, "tools.0.function.name"),
        ({"tools": TOOLS * 2}, "tools"),
    ],
)
def test_wrong_tools_are_named(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    assert error_of(http.post(CHAT, json=chat_body("hi", **fields)), 400)["param"] == param


@pytest.mark.parametrize("num_chars", range(1, len(CALL)))
def test_a_required_call_that_was_cut_leaves_no_markup(num_chars: int) -> None:
    """In pieces of one character, as a stream has them."""
    parser = answer_parser(None, tool_format_by_name("generic"), calls_only=True)
    deltas = [delta for letter in CALL[:num_chars] for delta in parser.feed(letter)] + parser.finish()
    assert joined(deltas).content == ""


def test_a_call_cut_by_a_stop_text_ends_for_the_stop(http: httpx.Client) -> None:
    choice = choice_of(http, chat_body(f"[[reply: {CALL}]]", tools=TOOLS, stop=['"b"']))
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", '"b"')


def test_functions_with_a_choice_among_tools(http: httpx.Client) -> None:
    error = error_of(http.post(CHAT, json=chat_body("hi", functions=[FUNCTION], tool_choice="required")), 400)
    assert error["param"] == "functions"
