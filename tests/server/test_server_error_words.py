"""A part of a request goes by the runtime's name until a dialect names it: in the field at fault, and in the message."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest

from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.request import SamplingParams
from server.dialects.openai.errors import FIELD_NAMES, InvalidParam, OpenAIErrors
from server.dialects.openai.field_names import names_in
from server.dialects.openai.wire.chat import ChatRequest
from server.dialects.openai.wire.completions import CompletionRequest
from server.http.errors import ErrorKind, ErrorReply, reply_to
from tests.doubles.live_server import chat_body, events_of

TOOL = {"name": "f", "parameters": {}}


def written(reply: ErrorReply, errors: OpenAIErrors | None = None) -> Any:
    return json.loads((errors or OpenAIErrors()).body(reply))["error"]


def test_what_chooses_tokens_goes_by_its_own_name() -> None:
    names = {field.name for field in msgspec.structs.fields(SamplingParams)} - {"grammar"}
    assert names <= {field.value for field in Field}


def test_every_part_has_a_name_that_openais_requests_know() -> None:
    known = ChatRequest.model_fields.keys() | CompletionRequest.model_fields.keys() | {"tokens"}
    assert set(FIELD_NAMES.values()) <= known
    assert FIELD_NAMES.keys() == set(Field)


def test_a_message_has_the_dialects_words_for_what_it_quotes() -> None:
    message = f"{Field.MIN_TOKENS.quoted} and {Field.FORM.quoted}: run `slmops ps`, or choose `another`."
    error = written(reply_to(InvalidRequest(message, field=Field.FORM, code="c")))
    assert error["message"] == "min_tokens and response_format: run `slmops ps`, or choose `another`."
    assert (error["param"], error["code"], error["type"]) == ("response_format", "c", "invalid_request_error")


def test_what_the_dialect_refuses_it_names_itself() -> None:
    error = written(reply_to(InvalidParam("no", param="messages.0.name")))
    assert (error["param"], error["code"]) == ("messages.0.name", "invalid_value")


@pytest.mark.parametrize(
    ("fields", "part", "name"),
    [
        ({}, Field.MAX_TOKENS, "max_tokens"),
        ({"max_completion_tokens": 1}, Field.MAX_TOKENS, "max_completion_tokens"),
        ({}, Field.TOOLS, "tools"),
        ({"functions": [TOOL]}, Field.TOOLS, "functions"),
        ({"functions": [TOOL]}, Field.TOOL_CHOICE, "function_call"),
        ({"guided_regex": "a"}, Field.FORM, "guided_regex"),
        ({"structured_outputs": {"choice": ["a"]}}, Field.FORM, "structured_outputs.choice"),
        ({}, Field.THINKING_BUDGET, "thinking_token_budget"),
    ],
)
def test_a_request_is_reported_the_name_that_it_used(fields: dict[str, Any], part: Field, name: str) -> None:
    assert names_in(ChatRequest(**chat_body("hi", **fields)))[part] == name


@pytest.mark.parametrize("kind", ErrorKind)
def test_every_kind_of_error_has_a_type(kind: ErrorKind) -> None:
    assert str(written(ErrorReply(400, "m", kind, None))["type"]).endswith("_error")


def test_an_error_in_a_stream_has_the_requests_words(http: httpx.Client) -> None:
    """The answer follows the expression for a while, until that is too much."""
    body = chat_body(f"[[reply: {'abc_' * 100}]]", stream=True, guided_regex=r"(\w{1,1000}){1,1000}", max_tokens=400)
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        *_, last = events_of(response)
    assert (last["error"]["param"], last["error"]["code"]) == ("guided_regex", "grammar_too_complex")
    assert last["error"]["message"].startswith("guided_regex ")
