"""Requests as the runtime takes them: parameters, conversations, forms of the answer; and what contradicts itself. Without HTTP."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from runtime.protocol.request import ChatPrompt, Grammar, GrammarKind, SamplingParams
from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.structured_output import form_param
from server.dialects.openai.translate import translate_chat, translate_completion
from server.dialects.openai.wire.chat import ChatRequest
from server.dialects.openai.wire.completions import CompletionRequest
from tests.doubles.live_server import chat_body

pytestmark = pytest.mark.unit

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}


def params(**fields: Any) -> SamplingParams:
    return translate_chat(ChatRequest(**chat_body("hi", **fields))).params


def completion_params(**fields: Any) -> SamplingParams:
    return translate_completion(CompletionRequest(prompt="hi", **fields)).params


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    prompt = translate_chat(ChatRequest(messages=list(messages))).prompts[0]
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_logprobs_of_chat(fields: dict[str, Any], expected: int | None) -> None:
    assert params(**fields).logprobs == expected


@pytest.mark.parametrize(
    ("fields", "logprobs", "prompt_logprobs"),
    [
        ({}, None, None),
        ({"logprobs": 0}, 0, None),
        ({"logprobs": 5, "echo": True}, 5, 5),
        ({"logprobs": 5, "echo": True, "prompt_logprobs": 2}, 5, 2),
        ({"echo": True}, None, None),
        ({"prompt_logprobs": 0}, None, 0),
        ({"best_of": 3}, 0, None),
        ({"best_of": 3, "n": 3}, None, None),
        ({"best_of": 3, "logprobs": 2}, 2, None),
    ],
)
def test_logprobs_of_completions(fields: dict[str, Any], logprobs: int | None, prompt_logprobs: int | None) -> None:
    translated = completion_params(**fields)
    assert (translated.logprobs, translated.prompt_logprobs) == (logprobs, prompt_logprobs)


def test_an_echo_alone_needs_no_answer() -> None:
    assert completion_params(echo=True, max_tokens=0).max_tokens == 0
    assert completion_params(prompt_logprobs=1, max_tokens=0).max_tokens == 0
    assert completion_params().max_tokens == 16


def test_choices_of_a_prompt_take_seeds_in_a_row() -> None:
    request = translate_completion(CompletionRequest(prompt=["a", "b"], n=2, seed=-1))
    seeds = [(prompt.text, params.seed) for prompt, params in request.submissions()]
    assert seeds == [("a", 2**64 - 1), ("a", 0), ("b", 2**64 - 1), ("b", 0)]
    unseeded = translate_completion(CompletionRequest(prompt="a", n=3))
    assert [params.seed for _, params in unseeded.submissions()] == [None, None, None]


@pytest.mark.parametrize(
    ("fields", "grammar", "param"),
    [
        ({"response_format": {"type": "text"}}, None, "response_format"),
        ({"structured_outputs": {"json_object": False}}, None, "response_format"),
        (
            {"response_format": {"type": "json_object"}},
            Grammar(kind=GrammarKind.JSON_SCHEMA, source='{"type":"object"}'),
            "response_format",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}},
            Grammar(kind=GrammarKind.JSON_SCHEMA, source=msgspec.json.encode(SCHEMA).decode()),
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
            Grammar(kind=GrammarKind.JSON_SCHEMA, source="{}"),
            "response_format.json_schema.schema",
        ),
        (
            {"structured_outputs": {"json": '{"type": "null"}'}},
            Grammar(kind=GrammarKind.JSON_SCHEMA, source='{"type":"null"}'),
            "structured_outputs.json",
        ),
        (
            {"structured_outputs": {"json_object": True}},
            Grammar(kind=GrammarKind.JSON_SCHEMA, source='{"type":"object"}'),
            "structured_outputs.json_object",
        ),
        (
            {"structured_outputs": {"regex": "a+"}},
            Grammar(kind=GrammarKind.REGEX, source="a+"),
            "structured_outputs.regex",
        ),
        (
            {"structured_outputs": {"choice": ['a"', "é"]}},
            Grammar(kind=GrammarKind.CHOICE, source='["a\\"","é"]'),
            "structured_outputs.choice",
        ),
        (
            {"structured_outputs": {"grammar": 'start: "a"'}},
            Grammar(kind=GrammarKind.LARK, source='start: "a"'),
            "structured_outputs.grammar",
        ),
        ({"guided_json": {}}, Grammar(kind=GrammarKind.JSON_SCHEMA, source="{}"), "guided_json"),
        ({"guided_regex": "a"}, Grammar(kind=GrammarKind.REGEX, source="a"), "guided_regex"),
        ({"guided_choice": ["a"]}, Grammar(kind=GrammarKind.CHOICE, source='["a"]'), "guided_choice"),
        ({"guided_grammar": "g"}, Grammar(kind=GrammarKind.LARK, source="g"), "guided_grammar"),
    ],
)
def test_forms_of_the_answer(fields: dict[str, Any], grammar: Grammar | None, param: str) -> None:
    assert params(**fields).grammar == grammar
    assert completion_params(**fields).grammar == grammar
    assert form_param(ChatRequest(**chat_body("hi", **fields))) == param


def test_a_schema_keeps_numbers_beyond_64_bits() -> None:
    grammar = params(guided_json={"maximum": 10**40}).grammar
    assert grammar is not None
    assert grammar.source == f'{{"maximum":{10**40}}}'


def test_the_older_name_of_a_budget_and_of_reasoning() -> None:
    assert params(thinking_token_budget=-1).thinking_budget is None
    assert params(thinking_token_budget=0).thinking_budget == 0
    prompt = translate_chat(ChatRequest(**chat_body("hi", reasoning_effort="max"))).prompts[0]
    assert isinstance(prompt, ChatPrompt)
    assert prompt.reasoning_effort == "xhigh"


def test_a_prediction_is_a_text_or_parts_without_anything_between() -> None:
    assert params(prediction={"type": "content", "content": "abc"}).prediction == "abc"
    parts = [{"type": "text", "text": "a\n"}, {"type": "text", "text": "b"}]
    assert params(prediction={"type": "content", "content": parts}).prediction == "a\nb"
    assert params(prediction={"type": "content", "content": ""}).prediction is None


def test_a_conversation_with_calls() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    bare = {"id": "c2", "type": "function", "function": {"name": "now", "arguments": ""}}
    assert turns(
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "add", "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [call, bare], "reasoning": "hm"},
        {"role": "tool", "content": [{"type": "text", "text": "2"}], "tool_call_id": "c1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "tool_calls": []},
        {"role": "assistant", "content": None, "refusal": "never"},
    ) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "add", "name": "Ann"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}},
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": {}}},
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
        {"role": "assistant", "content": "no"},
        {"role": "assistant", "content": "never"},
    ]


def test_a_conversation_of_the_older_form() -> None:
    assert turns(
        {"role": "user", "content": "add"},
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}},
        {"role": "function", "name": "add", "content": "2"},
    )[1:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "add", "arguments": {}}}],
        },
        {"role": "tool", "name": "add", "content": "2", "tool_call_id": "call_1"},
    ]


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 1, "logprobs": False}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"chat_template_kwargs": {"a": 2**64}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": [{"b": -(2**63) - 1}]}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": _deep(120)}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"min_tokens": 5, "max_completion_tokens": 4}, "min_tokens"),
    ],
)
def test_contradictions_in_chat(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidParam) as caught:
        translate_chat(ChatRequest(**chat_body("hi", **fields)))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 3, "n": 2, "stream": True}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "logprobs": 1}, "max_tokens"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ],
)
def test_contradictions_in_completions(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidParam) as caught:
        translate_completion(CompletionRequest(prompt="hi", **fields))
    assert caught.value.param == param


def test_arguments_beyond_64_bits_are_named() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": f'{{"a": {2**70}}}'}}
    with pytest.raises(InvalidParam) as caught:
        turns({"role": "assistant", "tool_calls": [call]})
    assert caught.value.param == "messages.0.tool_calls.0.function.arguments"


@pytest.mark.parametrize("request_type", [ChatRequest, CompletionRequest])
def test_every_field_is_described(request_type: type[BaseModel]) -> None:
    """The OpenAPI document describes every field."""
    schema = request_type.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        for name, field in model.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, f"{model['title']}.{name}"
