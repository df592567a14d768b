"""Answers of a guaranteed form over HTTP with a real worker: a fake model that would say anything else."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from tests.doubles.live_server import chat_body, error_of, events_of

CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Bo"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}}
TOOLS = [
    {"type": "function", "function": {"name": name, "strict": True, "parameters": SCHEMA | {"description": name}}}
    for name in ("greet", "part")
]


def choice_of(http: httpx.Client, body: dict[str, Any]) -> Any:
    response = http.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def is_person(text: str) -> bool:
    person = json.loads(text)
    return set(person) == {"name", "age"} and person["name"] in ("Ann", "Bo") and 0 <= person["age"] <= 99


@pytest.mark.parametrize(
    "fields", [{"response_format": FORMAT}, {"structured_outputs": {"json": SCHEMA}}, {"guided_json": json.dumps(SCHEMA)}]
)
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_schema_holds_whatever_the_model_would_say(http: httpx.Client, fields: dict[str, Any], temperature: float) -> None:
    choice = choice_of(http, chat_body("[[reply: no JSON at all]]", temperature=temperature, max_tokens=200, **fields))
    assert is_person(choice["message"]["content"])
    assert choice["finish_reason"] == "stop"


def test_a_schema_holds_in_a_stream_and_in_completions(http: httpx.Client) -> None:
    body = chat_body("hi", response_format=FORMAT, max_tokens=200, stream=True)
    with http.stream("POST", CHAT, json=body) as response:
        *chunks, _ = events_of(response)
    assert is_person("".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks))
    completion = http.post("/v1/completions", json={"prompt": "hi", "response_format": FORMAT, "max_tokens": 200, "n": 3}).json()
    assert all(is_person(choice["text"]) for choice in completion["choices"])


def test_any_object(http: httpx.Client) -> None:
    choice = choice_of(http, chat_body('[[reply: {"a": [1, true]}]]', response_format={"type": "json_object"}, max_tokens=200))
    assert json.loads(choice["message"]["content"]) == {"a": [1, True]}


@pytest.mark.parametrize(
    ("requested", "pattern"),
    [
        ({"regex": "[a-c]{3}-[0-9]{2}"}, "[a-c]{3}-[0-9]{2}"),
        ({"choice": ["ja", "n\u00e9in"]}, "ja|n\u00e9in"),
        ({"grammar": 'start: "a" ("b" | "c") "d"'}, "abd|acd"),
    ],
)
def test_other_forms(http: httpx.Client, requested: dict[str, Any], pattern: str) -> None:
    choice = choice_of(http, chat_body("hi", structured_outputs=requested, max_tokens=50))
    assert re.fullmatch(pattern, choice["message"]["content"])


def test_an_answer_that_was_cut_says_so(http: httpx.Client) -> None:
    assert choice_of(http, chat_body("hi", response_format=FORMAT, max_tokens=5))["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("fields", "param", "named"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"uniqueItems": True}}}},
            "response_format.json_schema.schema",
            "uniqueItems",
        ),
        ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex", ""),
        ({"structured_outputs": {"grammar": "start: nothing"}}, "structured_outputs.grammar", "nothing"),
        ({"guided_json": {"not": {}}}, "guided_json", ""),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema"),
        ({"response_format": {"type": "xml"}}, "response_format.type", ""),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}}, "response_format.json_schema.name", ""),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs", "one of"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice", ""),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json", "JSON"),
    ],
)
def test_what_cannot_be_held_to_is_named(http: httpx.Client, fields: dict[str, Any], param: str, named: str) -> None:
    error = error_of(http.post(CHAT, json=chat_body("hi", **fields)), 400)
    assert error["param"] == param
    assert named in error["message"]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"greet", "part"}),
        ({"type": "function", "function": {"name": "part"}}, {"part"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "greet"}}]},
            },
            {"greet"},
        ),
    ],
)
def test_a_required_call_is_made_and_valid(http: httpx.Client, choice: Any, names: set[str]) -> None:
    body = chat_body("[[reply: I will not]]", tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, max_tokens=300)
    answered = choice_of(http, body)
    (call,) = answered["message"]["tool_calls"]
    assert call["function"]["name"] in names
    assert is_person(call["function"]["arguments"])
    assert (answered["message"]["content"], answered["finish_reason"]) == (None, "tool_calls")


def test_a_required_call_of_the_older_form(http: httpx.Client) -> None:
    functions = [tool["function"] for tool in TOOLS]
    body = chat_body("[[reply: I will not]]", functions=functions, function_call={"name": "part"}, max_tokens=300)
    answered = choice_of(http, body)
    assert answered["message"]["function_call"]["name"] == "part"
    assert is_person(answered["message"]["function_call"]["arguments"])
    assert answered["finish_reason"] == "function_call"


def test_an_expression_that_outgrows_a_limit_is_the_requests_fault(http: httpx.Client) -> None:
    body = chat_body(f"[[reply: {'abc_' * 100}]]", structured_outputs={"regex": r"(\w{1,1000}){1,1000}"}, max_tokens=400)
    error = error_of(http.post(CHAT, json=body), 400)
    assert (error["param"], error["code"]) == ("structured_outputs.regex", "grammar_too_complex")


@pytest.mark.parametrize(("field", "param"), [("tools", "tools"), ("functions", "functions")])
def test_a_strict_schema_that_cannot_be_held_to_is_refused(http: httpx.Client, field: str, param: str) -> None:
    function = {"name": "f", "strict": True, "parameters": {"type": "object", "minProperties": 2, "uniqueItems": True}}
    tools = [function] if field == "functions" else [{"type": "function", "function": function}]
    error = error_of(http.post(CHAT, json=chat_body("hi", **{field: tools})), 400)
    assert error["param"].partition(".")[0] == param
    assert error["code"] == "unsupported_schema"
