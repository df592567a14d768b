"""Every field that requests something unsupported is refused by name; values without effect are not."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.near_misses import warnings_of
from server.dialects.openai.refusals import CHAT, COMPLETION, MESSAGE, Unsupported
from server.dialects.openai.translate import translate_chat, translate_completion
from server.dialects.openai.wire.chat import ChatRequest
from server.dialects.openai.wire.completions import CompletionRequest
from tests.doubles.live_server import chat_body, error_of

_ASKING = {"asking": "for something"}


@pytest.mark.parametrize("row", CHAT, ids=lambda row: row.field)
def test_chat_fields(row: Unsupported) -> None:
    with pytest.raises(InvalidParam, match=f"'{row.field}' requests") as caught:
        translate_chat(ChatRequest(**chat_body("hi"), **{row.field: _ASKING}))
    assert (caught.value.param, caught.value.code) == (row.field, "unsupported_parameter")
    for value in (*row.harmless, None):
        translate_chat(ChatRequest(**chat_body("hi"), **{row.field: value}))


@pytest.mark.parametrize("row", COMPLETION, ids=lambda row: row.field)
def test_completion_fields(row: Unsupported) -> None:
    with pytest.raises(InvalidParam, match=f"'{row.field}' requests"):
        translate_completion(CompletionRequest(prompt="hi", **{row.field: _ASKING}))
    for value in (*row.harmless, None):
        translate_completion(CompletionRequest(prompt="hi", **{row.field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modalities", ["text", "audio"]),
        ("store", True),
        ("verbosity", "low"),
        ("reasoning", {"effort": "low"}),
        ("best_of", 2),
        ("grammar", 'root ::= "a"'),
        ("stream_options", {"include_obfuscation": True}),
        ("response_format", {"type": "json_object", "schema": {}}),
        ("structured_outputs", {"regex": "a", "whitespace_pattern": " "}),
    ],
)
def test_over_http(http: httpx.Client, field: str, value: Any) -> None:
    error = error_of(http.post("/v1/chat/completions", json=chat_body("hi", **{field: value})), 400)
    assert error["code"] == "unsupported_parameter"
    assert error["param"].split(".")[0] == field
    assert "leave it out" in error["message"]


@pytest.mark.parametrize("field", ["format", "grammar", "regex", "chat_template"])
def test_an_empty_text_has_no_effect(http: httpx.Client, field: str) -> None:
    assert http.post("/v1/chat/completions", json=chat_body("hi", **{field: ""})).status_code == 200


@pytest.mark.parametrize(("field", "value"), [("suffix", "end"), ("top_logprobs", 2), ("prompt_embeds", "AA==")])
def test_completions_over_http(http: httpx.Client, field: str, value: Any) -> None:
    error = error_of(http.post("/v1/completions", json={"prompt": "hi", field: value}), 400)
    assert (error["param"], error["code"]) == (field, "unsupported_parameter")


@pytest.mark.parametrize("row", MESSAGE, ids=lambda row: row.field)
def test_message_fields(http: httpx.Client, row: Unsupported) -> None:
    messages = [{"role": "assistant", "content": "x", row.field: _ASKING}]
    error = error_of(http.post("/v1/chat/completions", json={"messages": messages}), 400)
    assert (error["param"], error["code"]) == ("messages.0", "unsupported_parameter")
    assert row.field in error["message"]


@pytest.mark.parametrize("tier", ["flex", "priority", "scale"])
def test_tiers(http: httpx.Client, tier: str) -> None:
    error = error_of(http.post("/v1/chat/completions", json=chat_body("hi", service_tier=tier)), 400)
    assert (error["param"], error["code"]) == ("service_tier", "unsupported_parameter")


def test_custom_tools(http: httpx.Client) -> None:
    tool = {"type": "custom", "custom": {"name": "f"}}
    error = error_of(http.post("/v1/chat/completions", json=chat_body("hi", tools=[tool])), 400)
    assert (error["param"], error["code"]) == ("tools.0.type", "unsupported_parameter")
    error = error_of(http.post("/v1/chat/completions", json=chat_body("hi", tool_choice=tool)), 400)
    assert (error["param"], error["code"]) == ("tool_choice", "unsupported_parameter")


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_parts_other_than_text(http: httpx.Client, kind: str) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, kind: {}}]}]
    error = error_of(http.post("/v1/chat/completions", json={"messages": messages}), 400)
    assert (error["param"], error["code"]) == ("messages.0.content.1.type", "unsupported_parameter")
    assert "text only" in error["message"]


def test_fields_without_meaning_here_are_accepted(http: httpx.Client) -> None:
    harmless = {"user": "me", "metadata": {"a": "b"}, "parallel_tool_calls": True, "safety_identifier": "s", "brand_new": [1]}
    assert http.post("/v1/chat/completions", json=chat_body("hi", **harmless)).status_code == 200


def test_what_has_another_name_here_is_reported() -> None:
    with pytest.raises(InvalidParam, match="this server has repetition_penalty: use that"):
        translate_chat(ChatRequest(**chat_body("hi"), repeat_penalty=1.2))


_F = {"name": "f", "parameters": {"type": "object"}}
_SCHEMA = {"name": "n", "schema": {"type": "integer", "description": "x", "x-mine": 1}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {"json_schema": {"type": "integer"}}}, "structured_outputs.json_schema"),
        ({"structured_outputs": {"regex": "a", "Regex": "b"}}, "structured_outputs.Regex"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"json": None}}, "structured_outputs"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format.json_schema.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "parameters": {"type": "integer"}}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": _SCHEMA | {"parameters": {}}}},
            "response_format.json_schema.parameters",
        ),
        ({"response_format": {"type": "json_schema", "json_schema": _SCHEMA, "strict": True}}, "response_format.strict"),
        ({"response_format": {"type": "text", "regex": "a"}}, "response_format.regex"),
        ({"guided_decoding": {"json": {}, "regex": "a"}}, "guided_decoding"),
        ({"response_schema": {"type": "integer"}}, "response_schema"),
        ({"responseSchema": {"type": "integer"}}, "responseSchema"),
        ({"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}}, "text.format"),
        ({"extra_body": {"guided_json": {}}}, "extra_body"),
        ({"response-format": {"type": "json_object"}}, "response-format"),
        ({"responseFormat": {"type": "json_object"}}, "responseFormat"),
        ({"respone_format": {"type": "json_object"}}, "respone_format"),
        ({"structured_output": {"regex": "a"}}, "structured_output"),
        ({"guided_choices": ["a"]}, "guided_choices"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_would_constrain_an_answer_is_never_ignored(http: httpx.Client, path: str, fields: Any, param: str) -> None:
    plain = chat_body("hi") if path.startswith("/v1/chat") else {"prompt": "hi"}
    error = error_of(http.post(path, json=plain | fields), 400)
    assert error["param"] == param
    assert param in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "input_schema": {}}}]}, "tools.0.function.input_schema"),
        ({"tools": [{"type": "function", "function": _F, "strict": True}]}, "tools.0.strict"),
        ({"functions": [_F | {"inputSchema": {}}]}, "functions.0.inputSchema"),
        ({"tool": [{"type": "function", "function": _F}]}, "tool"),
        ({"toolChoice": "required"}, "toolChoice"),
        ({"tools": [{"type": "function", "function": _F}], "tool_choice": {"type": "auto", "max": 1}}, "tool_choice.max"),
        (
            {
                "tools": [{"type": "function", "function": _F}],
                "tool_choice": {"type": "function", "function": {"name": "f", "arguments": "{}"}},
            },
            "tool_choice.function.arguments",
        ),
        ({"functions": [_F], "function_call": {"name": "f", "mode": "any"}}, "function_call.mode"),
    ],
)
def test_what_would_constrain_a_call_is_never_ignored(http: httpx.Client, fields: Any, param: str) -> None:
    error = error_of(http.post("/v1/chat/completions", json=chat_body("hi") | fields), 400)
    assert (error["param"], error["code"]) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_schema", "json_schema": _SCHEMA | {"extra": None}, "schema": None}},
        {"response_format": {"type": "text"}, "guided_decoding": None, "extra_body": {}, "text": {"verbosity": "low"}},
        {"structured_outputs": {"json_object": False}},
        {"tools": [{"type": "function", "function": _F | {"return": {"type": "string"}}, "cache_control": {"type": "ephemeral"}}]},
        {"tool_ids": [], "features": {}, "session_id": "s", "chat_id": "c", "background_tasks": {}, "variables": {}},
        {"prompt_cache_retention": "24h", "prompt_cache_options": {}, "top_a": 0, "cache_prompt": True, "timings_per_token": True},
    ],
)
def test_what_clients_send_beside_it_passes_without_a_warning(http: httpx.Client, fields: Any) -> None:
    answer = http.post("/v1/chat/completions", json=chat_body("hi", max_tokens=1) | fields)
    assert answer.status_code == 200, answer.text
    assert "x-slmops-warning" not in answer.headers


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("max_token", "max_tokens"),
        ("max_output_tokens", "max_tokens"),
        ("maxTokens", "max_tokens"),
        ("max_new_tokens", "max_tokens"),
        ("temprature", "temperature"),
        ("topP", "top_p"),
        ("logprob", "logprobs"),
        ("repetition_penality", "repetition_penalty"),
        ("system", "messages"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_other_near_misses_are_warned_of(http: httpx.Client, field: str, meant: str, stream: bool) -> None:
    answer = http.post("/v1/chat/completions", json=chat_body("hi", stream=stream, max_completion_tokens=1) | {field: 1})
    assert answer.status_code == 200
    assert f"The field {field} is unknown and ignored; use {meant}" in answer.headers["x-slmops-warning"]


def test_options_of_a_stream_are_warned_of(http: httpx.Client) -> None:
    body = chat_body("hi", stream=True, stream_options={"includeUsage": True}, max_tokens=1)
    assert "use stream_options.include_usage." in http.post("/v1/chat/completions", json=body).headers["x-slmops-warning"]


def test_completions_warn_too(http: httpx.Client) -> None:
    answer = http.post("/v1/completions", json={"prompt": "hi", "maxTokens": 3})
    assert "use max_tokens" in answer.headers["x-slmops-warning"]


@pytest.mark.parametrize("name", ["max_tokens\r\nX-Evil: 1", "m\u00e1x_tokens", "max_tokens" * 100, ""])
def test_a_warning_is_no_way_into_the_headers(http: httpx.Client, name: str) -> None:
    answer = http.post("/v1/chat/completions", json=chat_body("hi", max_tokens=1) | {name: 1})
    assert answer.status_code == 200
    assert "x-slmops-warning" not in answer.headers
    assert "x-evil" not in answer.headers


def test_many_unknown_fields_are_compared_to_a_few_only() -> None:
    unknown = {f"max_token{number}": 1 for number in range(10_000)}
    assert len(warnings_of(ChatRequest(**chat_body("hi"), **unknown))) <= 32


def test_usage_in_every_chunk_needs_usage(http: httpx.Client) -> None:
    options = {"continuous_usage_stats": True}
    error = error_of(http.post("/v1/chat/completions", json=chat_body("hi", stream=True, stream_options=options)), 400)
    assert error["param"] == "stream_options.continuous_usage_stats"


def test_completions_take_predictions() -> None:
    request = CompletionRequest(prompt="hi", prediction={"type": "content", "content": "what comes"})
    assert translate_completion(request).params.prediction == "what comes"
