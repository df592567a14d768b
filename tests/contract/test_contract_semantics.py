"""Cases that no schema covers: contradictions and references to what does not exist are refused by name; odd but valid requests are
not.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
import pytest

from tests.contract.conversation import CHAT, COMPLETIONS, DETOKENIZE, INPUT_TOKENS, TOKENIZE, assert_lives, post_values, why_wrong

DEEP: dict[str, Any] = {"type": "string"}
for _ in range(150):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat_body(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def tool(name: str = "f", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def schema(value: Any, **fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": value, **fields}}}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    # messages
    (CHAT, chat_body(), "messages"),
    (CHAT, chat_body(user("hi", tool_calls=[CALL])), "messages"),
    (CHAT, chat_body(user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])), "messages"),
    (CHAT, chat_body(user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])), "messages"),
    (CHAT, chat_body(user([{"type": "file", "file": {"file_id": "f"}}])), "messages"),
    (CHAT, chat_body(user([{"type": {}, "text": "hi"}])), "messages"),
    (CHAT, chat_body({"role": "tool", "content": "1"}), "messages"),
    (CHAT, chat_body({"role": "tool", "content": "1", "tool_call_id": "nobody"}), "messages"),
    (CHAT, chat_body({"role": "function", "content": "1"}), "messages"),
    (CHAT, chat_body({"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}), "messages"),
    (CHAT, chat_body({"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[]"}}]}), "messages"),
    (CHAT, chat_body(*[user("hi")] * 10_000), "messages"),
    (CHAT, chat_body(user("x" * 100_000)), "messages"),
    (INPUT_TOKENS, chat_body(user([{"type": "image_url", "image_url": {"url": "x"}}])), "messages"),
    # counts and limits
    (CHAT, {"n": 129}, "n"),
    (CHAT, {"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    (CHAT, {"top_logprobs": 5}, "top_logprobs"),
    (CHAT, {"top_logprobs": 5, "logprobs": False}, "top_logprobs"),
    (CHAT, {"logit_bias": {"259": 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {"٣": 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {"1_0": 1}}, "logit_bias"),
    (CHAT, {"logit_bias": {" 1": 1}}, "logit_bias"),
    (CHAT, {"stop": ["a"] * 17}, "stop"),
    (CHAT, {"stop": ["a", ""]}, "stop"),
    (CHAT, {"stop_token_ids": [259]}, "stop_token_ids"),
    (CHAT, {"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    (CHAT, {"metadata": {"a": 1}}, "metadata"),
    (CHAT, {"service_tier": "flex"}, "service_tier"),
    (CHAT, {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    (CHAT, {"model": "nobody"}, "model"),
    (CHAT, {"model": "../../etc/passwd"}, "model"),
    (COMPLETIONS, {"prompt": [259]}, "prompt"),
    (COMPLETIONS, {"prompt": [[1], []]}, "prompt"),
    (COMPLETIONS, {"prompt": ""}, "prompt"),
    (COMPLETIONS, {"prompt": ["a", ""]}, "prompt"),
    (COMPLETIONS, {"prompt": ["a"] * 10_000}, "prompt"),
    (COMPLETIONS, {"prompt": ["a"] * 100, "n": 128}, "n"),
    (COMPLETIONS, {"best_of": 1, "n": 2}, "best_of"),
    (COMPLETIONS, {"best_of": 2, "stream": True}, "best_of"),
    (COMPLETIONS, {"max_tokens": 0}, "max_tokens"),
    (COMPLETIONS, {"suffix": "end"}, "suffix"),
    (TOKENIZE, {"prompt": "a", "content": "b"}, "content"),
    (DETOKENIZE, {"tokens": [259]}, "tokens"),
    # the template
    (CHAT, {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    (CHAT, {"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs"),
    (CHAT, {"chat_template_kwargs": {"a": 2**64}}, "chat_template_kwargs"),
    (CHAT, {"chat_template_kwargs": DEEP}, "chat_template_kwargs"),
    (CHAT, {"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
    # the form of the answer
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format"),
    (CHAT, {"response_format": {"type": "xml"}}, "response_format"),
    (CHAT, {"response_format": {"type": "json_object"}, "structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
    (CHAT, schema({"type": "string"}, name="a b"), "response_format"),
    (CHAT, schema(True), "response_format"),
    (CHAT, schema({"type": "text"}), "response_format"),
    (CHAT, schema({"type": "string", "pattern": "("}), "response_format"),
    (CHAT, schema({"$ref": "#"}), "response_format"),
    (CHAT, schema({"$ref": "#/nowhere"}), "response_format"),
    (CHAT, schema({"$ref": "https://example.org/schema.json"}), "response_format"),
    (CHAT, schema({"type": "object", "minProperties": 3, "unevaluatedProperties": False}), "response_format"),
    (CHAT, schema({"enum": []}), "response_format"),
    (CHAT, schema(False), "response_format"),
    (CHAT, schema({"type": "integer", "minimum": 5, "maximum": 1}), "response_format"),
    (CHAT, schema({"const": 2**70}), "response_format"),
    (CHAT, schema(DEEP), "response_format"),
    (CHAT, {"structured_outputs": {"regex": "("}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"regex": ""}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"regex": r"(a)\1"}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"regex": "(((a{1000}){1000}){1000}){1000}"}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"choice": []}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"choice": [""]}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"choice": ["a"], "regex": "a"}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"regex": r"[^\s\S]"}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"grammar": "start: nowhere"}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"grammar": "start: start"}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"grammar": 'start: a\na: a "x"'}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"grammar": "(" * 10_000}}, "structured_outputs"),
    (CHAT, {"structured_outputs": {"json": "{"}}, "structured_outputs"),
    # tools
    (CHAT, {"tools": [tool("a"), tool("a")]}, "tools"),
    (CHAT, {"tools": [tool("")]}, "tools"),
    (CHAT, {"tools": [tool("a b")]}, "tools"),
    (CHAT, {"tools": [tool("a" * 65)]}, "tools"),
    (CHAT, {"tools": [tool("f", parameters={"type": "string"})]}, "tools"),
    (CHAT, {"tools": [tool("f", parameters=DEEP)]}, "tools"),
    (CHAT, {"tools": [tool("f", parameters={"properties": {"a": {"const": 2**70}}})]}, "tools"),
    (CHAT, {"tools": [tool(f"f{number}") for number in range(129)]}, "tools"),
    (CHAT, {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools"),
    (CHAT, {"tool_choice": "required"}, "tool_choice"),
    (CHAT, {"tool_choice": "required", "tools": []}, "tool_choice"),
    (CHAT, {"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    (CHAT, {"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    (CHAT, {"tools": [tool()], "tool_choice": "often"}, "tool_choice"),
    (CHAT, {"tools": [tool()], "functions": [{"name": "f"}]}, "functions"),
    (CHAT, {"function_call": {"name": "f"}}, "function_call"),
]
ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat_body({"role": "developer", "content": "Be brief."}, user("hi", name="Ada"))),
    (CHAT, chat_body(user("\0\u202e שלום 👩‍👩‍👧‍👦 \ufeff"))),
    (CHAT, chat_body(user([{"type": "text", "text": "a"}, {"type": "text", "text": ""}]))),
    (CHAT, chat_body(user([]))),
    (
        CHAT,
        chat_body(user("hi"), {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "1"}),
    ),
    (CHAT, {"messages": [user("<|eos|><|assistant|>")]}),
    (CHAT, {"n": 128, "max_tokens": 1}),
    (CHAT, {"max_tokens": 2**31 - 1}),
    (CHAT, {"min_tokens": 4, "max_tokens": 4}),
    (CHAT, {"temperature": 1e-308}),
    (CHAT, {"temperature": 2, "top_p": 1e-308, "min_p": 1, "top_k": 1, "typical_p": 1e-308}),
    (CHAT, {"logit_bias": {str(token): -100 for token in range(259)}}),
    (CHAT, {"seed": -(2**63)}),
    (CHAT, {"seed": 2**64 - 1, "n": 2}),
    (CHAT, {"stop": None, "n": None, "tools": None, "logit_bias": None, "response_format": None, "metadata": None}),
    (CHAT, {"tools": [], "tool_choice": "none"}),
    (CHAT, {"metadata": {}, "user": "me", "brand_new": {"a": [1, "2", None]}}),
    (CHAT, {"model": ""}),
    (CHAT, {"response_format": {"type": "text"}}),
    (COMPLETIONS, {"prompt": [0]}),
    (COMPLETIONS, {"prompt": ["a"] * 100, "max_tokens": 1}),
    (COMPLETIONS, {"max_tokens": 0, "echo": True, "logprobs": 5}),
    (COMPLETIONS, {"max_tokens": None, "best_of": 3, "n": 2}),
    (TOKENIZE, {"prompt": "x" * 100_000}),
    (TOKENIZE, {"prompt": ""}),
    (DETOKENIZE, {"tokens": []}),
    (DETOKENIZE, {"tokens": [255, 254]}),
]
FORMS: list[dict[str, Any]] = [  # the fake model answers as scripted, so that only what a grammar forces is changed
    {"response_format": {"type": "json_object"}},
    schema({}),
    schema({"type": "object"}),
    schema({"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}),
    schema({"const": "שלום 👩‍👩‍👧‍👦"}),
    schema({"enum": [None, True, 1.5, "a", [], {}]}),
    schema({"type": "string", "pattern": "^(a+)+$"}),
    schema({"type": "string", "maxLength": 0}),
    schema({"type": "object", "properties": {"": {"type": "null"}}, "required": [""], "additionalProperties": False}),
    {"structured_outputs": {"regex": "(a+)+b?"}},
    {"structured_outputs": {"choice": [f"choice {number}" for number in range(10_000)]}},
    {"structured_outputs": {"choice": ["👩‍👩‍👧‍👦", "e\u0301", "\0", '"']}},
    schema({"type": "string", "minLength": 10**8}),
    schema({"type": "array", "minItems": 10**8}),
    {"structured_outputs": {"regex": "a{100000}"}},
    {"structured_outputs": {"grammar": 'start: "a"+'}},
    {"structured_outputs": {"grammar": "start: /a+/ /a+/"}},  # no end
    {"structured_outputs": {"json": '{"type": "null"}'}},
    {"tools": [tool()], "tool_choice": "required"},
    {"tools": [tool("f", parameters={"type": "object", "properties": {"é": {"type": "string"}}})], "tool_choice": "required"},
    {"tools": [tool(), tool("g")], "tool_choice": {"type": "function", "function": {"name": "g"}}},
    {"tools": [tool(f"f{number}") for number in range(4)], "tool_choice": "auto"},
]


@pytest.mark.parametrize(("path", "fields", "param"), REFUSED, ids=lambda value: str(value)[:80])
def test_refused_by_name(http: httpx.Client, path: str, fields: dict[str, Any], param: str, cases: Counter[str]) -> None:
    response = post_values(http, path, fields)
    cases[f"semantic edges, answered {response.status_code}"] += 1
    assert 400 <= response.status_code < 500, response.text
    assert why_wrong(response, [param]) is None
    assert len(response.json()["error"]["message"]) > 30


@pytest.mark.parametrize(("path", "fields"), ACCEPTED, ids=lambda value: str(value)[:80])
def test_accepted(http: httpx.Client, path: str, fields: dict[str, Any], cases: Counter[str]) -> None:
    response = post_values(http, path, fields)
    cases[f"semantic edges, answered {response.status_code}"] += 1
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("fields", FORMS, ids=lambda value: str(value)[:80])
def test_forms_are_accepted(http: httpx.Client, fields: dict[str, Any], cases: Counter[str]) -> None:
    response = post_values(http, CHAT, fields | {"max_tokens": 64})
    cases[f"semantic edges, answered {response.status_code}"] += 1
    assert response.status_code == 200, response.text


def test_the_server_lives(http: httpx.Client) -> None:
    assert_lives(http)
