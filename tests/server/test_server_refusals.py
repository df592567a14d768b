"""Every field that means something this server does not do is refused by name; values that ask for nothing are not."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from live_server import error_of, said

from runtime.errors import InvalidRequest
from server.openai.refusals import CHAT, COMPLETION, MESSAGE, Unsupported
from server.openai.translate import translate_chat, translate_completion
from server.openai.wire.chat import ChatRequest
from server.openai.wire.completions import CompletionRequest

_ASKING = {"asking": "for something"}


@pytest.mark.parametrize("row", CHAT, ids=lambda row: row.field)
def test_chat_fields(row: Unsupported) -> None:
    with pytest.raises(InvalidRequest, match=f"'{row.field}' asks for") as caught:
        translate_chat(ChatRequest(**said("hi"), **{row.field: _ASKING}))
    assert (caught.value.param, caught.value.code) == (row.field, "unsupported_parameter")
    for value in (*row.harmless, None):
        translate_chat(ChatRequest(**said("hi"), **{row.field: value}))


@pytest.mark.parametrize("row", COMPLETION, ids=lambda row: row.field)
def test_completion_fields(row: Unsupported) -> None:
    with pytest.raises(InvalidRequest, match=f"'{row.field}' asks for"):
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
    error = error_of(http.post("/v1/chat/completions", json=said("hi", **{field: value})), 400)
    assert error["code"] == "unsupported_parameter"
    assert error["param"].split(".")[0] == field
    assert "leave it out" in error["message"]


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
    error = error_of(http.post("/v1/chat/completions", json=said("hi", service_tier=tier)), 400)
    assert (error["param"], error["code"]) == ("service_tier", "unsupported_parameter")


def test_custom_tools(http: httpx.Client) -> None:
    tool = {"type": "custom", "custom": {"name": "f"}}
    error = error_of(http.post("/v1/chat/completions", json=said("hi", tools=[tool])), 400)
    assert (error["param"], error["code"]) == ("tools.0.type", "unsupported_parameter")
    error = error_of(http.post("/v1/chat/completions", json=said("hi", tool_choice=tool)), 400)
    assert (error["param"], error["code"]) == ("tool_choice", "unsupported_parameter")


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url"])
def test_parts_other_than_text(http: httpx.Client, kind: str) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind, kind: {}}]}]
    error = error_of(http.post("/v1/chat/completions", json={"messages": messages}), 400)
    assert (error["param"], error["code"]) == ("messages.0.content.1.type", "unsupported_parameter")
    assert "text only" in error["message"]


def test_fields_without_meaning_here_are_accepted(http: httpx.Client) -> None:
    harmless = {"user": "me", "metadata": {"a": "b"}, "parallel_tool_calls": True, "safety_identifier": "s", "brand_new": [1]}
    assert http.post("/v1/chat/completions", json=said("hi", **harmless)).status_code == 200


def test_what_has_another_name_here_is_told() -> None:
    with pytest.raises(InvalidRequest, match="this server has repetition_penalty: use that"):
        translate_chat(ChatRequest(**said("hi"), repeat_penalty=1.2))


def test_usage_in_every_chunk_needs_usage(http: httpx.Client) -> None:
    options = {"continuous_usage_stats": True}
    error = error_of(http.post("/v1/chat/completions", json=said("hi", stream=True, stream_options=options)), 400)
    assert error["param"] == "stream_options.continuous_usage_stats"


def test_completions_take_predictions() -> None:
    request = CompletionRequest(prompt="hi", prediction={"type": "content", "content": "what comes"})
    assert translate_completion(request).params.prediction == "what comes"
