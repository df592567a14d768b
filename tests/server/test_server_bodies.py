"""Request bodies: sizes, JSON that is none, and fields that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.doubles.live_server import LiveServer, chat_body, error_of

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b'{"messages": [], }',
        b'{"messages": "\xff\xfe"}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": -Infinity}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b"[" * 100_000,
        b"\x00\x01\x02",
        b"[]",
        b'"text"',
        b"null",
    ],
)
def test_what_is_no_request_is_refused(http: httpx.Client, body: bytes) -> None:
    error = error_of(http.post(CHAT, content=body, headers={"Content-Type": "application/json"}), 400)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "text/plain", "application/json"])
def test_json_is_read_whatever_it_is_called(http: httpx.Client, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    body = b'{"messages": [{"role": "user", "content": "hi"}]}'
    assert http.post(CHAT, content=body, headers=headers).status_code == 200


def test_a_body_that_says_it_is_too_large_is_refused_unread(live: LiveServer, http: httpx.Client) -> None:
    limit = int(live.parts.settings.max_body_bytes)
    response = http.post(CHAT, content=b" " * (limit + 1))
    error = error_of(response, 413)
    assert str(limit) in error["message"]
    assert response.headers["connection"] == "close"


def test_a_body_that_grows_too_large_is_refused(live: LiveServer, http: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(int(live.parts.settings.max_body_bytes) // (1 << 20) + 1):
            yield b" " * (1 << 20)

    response = http.post(CHAT, content=chunks())
    error_of(response, 413)
    assert response.headers["connection"] == "close"


def test_a_large_body_within_the_limit_meets_the_context_instead(http: httpx.Client) -> None:
    error = error_of(http.post(CHAT, json=chat_body("x" * 100_000)), 400)
    assert error["code"] == "context_length_exceeded"
    assert "8192" in error["message"]
    assert "100" in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.5),
        ("temperature", "warm"),
        ("temperature", True),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", 1.5),
        ("typical_p", 0),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e-30),
        ("repetition_penalty", 100.5),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("max_tokens", -1),
        ("max_tokens", 0),
        ("max_tokens", "5"),
        ("max_completion_tokens", 0),
        ("min_tokens", -1),
        ("seed", 2**64),
        ("seed", 1.5),
        ("logit_bias", {"a": 1}),
        ("logit_bias", {"5": 101}),
        ("logit_bias", {"-5": 1}),
        ("stop", ["a"] * 17),
        ("stop", ""),
        ("stop", [5]),
        ("stop", {"a": 1}),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", "5"),
        ("stream", "yes"),
        ("stream_options", []),
        ("priority", 0.5),
        ("model", 5),
        ("model", "m" * 300),
        ("chat_template_kwargs", []),
        ("n", 0),
        ("n", 129),
        ("n", True),
        ("metadata", {"k": 5}),
        ("metadata", {"k" * 65: "v"}),
        ("metadata", {"k": "v" * 513}),
        ("metadata", {str(number): "" for number in range(17)}),
        ("prediction", {"type": "guess", "content": "a"}),
        ("prediction", {"type": "content", "content": 5}),
        ("reasoning_effort", "enormous"),
        ("thinking_token_budget", -2),
        ("include_reasoning", "no"),
        ("response_format", "json"),
        ("structured_outputs", []),
        ("guided_choice", ["a", ""]),
        ("parallel_tool_calls", 1),
        ("return_token_ids", 1),
        ("ignore_eos", 1),
        ("messages", []),
        ("messages", "hi"),
        ("messages", None),
    ],
)
def test_a_wrong_field_is_named(http: httpx.Client, field: str, value: Any) -> None:
    error = error_of(http.post(CHAT, json=chat_body("hi") | {field: value}), 400)
    assert error["param"].split(".")[0] == field
    assert field in error["message"]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"content": "hi"}, "messages.0.role"),
        ({"role": "king", "content": "hi"}, "messages.0.role"),
        ({"role": "user"}, "messages.0"),
        ({"role": "user", "content": None}, "messages.0"),
        ({"role": "user", "content": 5}, "messages.0.content"),
        ({"role": "user", "content": [{"text": "hi"}]}, "messages.0.content.0.type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content.0"),
        ({"role": "user", "content": ["hi"]}, "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}, "messages.0"),
        ({"role": "user", "content": [{"type": "poem", "text": "hi"}]}, "messages.0.content.0.type"),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]},
            "messages.0.tool_calls.0.function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "[]"}}]},
            "messages.0.tool_calls.0.function.arguments",
        ),
        ({"role": "assistant", "tool_calls": [{"type": "function"}]}, "messages.0.tool_calls.0.id"),
        ({"role": "tool", "content": "4"}, "messages.0"),
        ({"role": "tool", "content": "4", "tool_call_id": "nobody"}, "messages.0.tool_call_id"),
        ({"role": "function", "content": "4"}, "messages.0"),
        ({"role": "function", "content": "4", "name": "nobody"}, "messages.0.name"),
        ({"role": "user", "content": "hi", "function_call": {"name": "f", "arguments": "{}"}}, "messages.0"),
        ("hi", "messages.0"),
    ],
)
def test_a_wrong_message_is_named(http: httpx.Client, message: Any, param: str) -> None:
    assert error_of(http.post(CHAT, json={"messages": [message]}), 400)["param"] == param


@pytest.mark.parametrize("prompt", [[], [[]], [1, "a"], [["a"]], 5, None, {"a": 1}, [True], [-1], [1.5]])
def test_a_wrong_prompt_is_named(http: httpx.Client, prompt: Any) -> None:
    assert error_of(http.post("/v1/completions", json={"prompt": prompt}), 400)["param"] == "prompt"


def test_a_missing_field_is_named(http: httpx.Client) -> None:
    error = error_of(http.post(CHAT, json={}), 400)
    assert (error["param"], error["code"]) == ("messages", "missing_required_parameter")


def test_errors_never_quote_what_was_written(http: httpx.Client) -> None:
    response = http.post(CHAT, json=chat_body("a secret", temperature="another secret", stop=5))
    assert "secret" not in response.text
