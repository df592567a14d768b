"""Chat answers in their parts, whole and streamed: contents, thoughts, calls, log probabilities, ids. On events, without HTTP."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.records import Capability
from runtime.protocol.events import FinishReason, Started
from runtime.protocol.messages import ModelInfo
from runtime.protocol.request import ChatPrompt, Prompt, TextPrompt
from runtime.text.formats.reader import AnswerParser
from server.dialects.openai.chat import chat_completion
from server.dialects.openai.chat_frames import ChatFrames, ChatStyle
from server.dialects.openai.rendering import Identity
from server.dialects.openai.wire.sampling import UsageReporting
from server.inference.answer_parts import AnswerParsing, AnswerParts, parts_of
from server.inference.inference import Answer, Indexed
from server.inference.resolution import Resolution, ServedModel
from tests.server.answer_events import IDENTITY, STARTED, answer_of, events_of

pytestmark = pytest.mark.unit

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
INFO = ModelInfo(
    engine="fake",
    provider="p",
    architecture="a",
    context_length=10,
    vocab_size=10,
    num_slots=1,
    threads=1,
    kv_bytes_per_token=1,
    capabilities=frozenset({Capability.CHAT, Capability.COMPLETION, Capability.FORMS}),
    load_s=0,
    resident_bytes=0,
    pid=1,
    tool_format="hermes",
    reasoning_format="think",
)
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
THOUGHT_AND_CALLS = f"<think>\nhm\n</think>\n\nI add.\n{CALL}\n{CALL}"


def parsing(*, with_tools: bool = True) -> AnswerParsing:
    prompt = ChatPrompt(messages=[], tools=[TOOL] if with_tools else None)
    found = AnswerParsing.of(INFO, prompt)
    assert found is not None
    return found


class Begun:
    """Choices that have begun, of a model that thinks and calls."""

    def started(self, choice: int) -> Started:
        return STARTED

    def parser(self, choice: int) -> AnswerParser | None:
        return parsing().parser(STARTED)


def streamed(pieces: list[str], style: ChatStyle, reason: FinishReason = FinishReason.STOP) -> list[dict[str, Any]]:
    frames = ChatFrames(IDENTITY, Begun(), style)
    payload = b"".join(frames.event(Indexed(0, event)) for event in events_of(pieces, reason))
    return [json.loads(event.removeprefix("data: ")) for event in payload.decode().split("\n\n") if event]


def joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of a stream."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        for name in ("content", "reasoning_content"):
            message[name] += delta.get(name, "")
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(message["tool_calls"])
                message["tool_calls"].append(
                    {"type": call["type"], "function": {"name": call["function"]["name"], "arguments": ""}}
                )
            message["tool_calls"][call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message


def whole(pieces: list[str], style: ChatStyle, reason: FinishReason = FinishReason.STOP) -> Any:
    answer = answer_of(pieces, reason, parser=parsing().parser(STARTED))
    return json.loads(chat_completion(IDENTITY, [answer], style).model_dump_json())


def test_a_whole_answer_in_its_parts() -> None:
    choice = whole([THOUGHT_AND_CALLS], ChatStyle())["choices"][0]
    calls = choice["message"].pop("tool_calls")
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning_content"].strip() == "hm"
    assert choice["message"]["content"].strip() == "I add."
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"a": 1}, {"a": 1}]
    assert len({call["id"] for call in calls}) == 2
    assert all(call["id"].startswith("call_") for call in calls)


def test_an_answer_of_calls_alone_has_no_content() -> None:
    message = whole([CALL], ChatStyle())["choices"][0]["message"]
    assert message["content"] is None
    assert "reasoning_content" not in message


def test_an_answer_of_text_has_no_calls() -> None:
    choice = whole(["hello"], ChatStyle())["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "hello", "refusal": None}
    assert choice["finish_reason"] == "stop"


def test_an_answer_that_was_cut_says_so() -> None:
    choice = whole([CALL[:-20]], ChatStyle(), FinishReason.LENGTH)["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "add"


def test_a_thought_can_be_left_out() -> None:
    style = ChatStyle(with_reasoning=False)
    message = whole([THOUGHT_AND_CALLS], style)["choices"][0]["message"]
    assert "reasoning_content" not in message
    assert joined(streamed([THOUGHT_AND_CALLS], style))["reasoning_content"] == ""


def test_calls_of_the_older_form() -> None:
    style = ChatStyle(legacy_calls=True)
    choice = whole([CALL], style)["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "add", "arguments": '{"a": 1}'}
    assert "tool_calls" not in choice["message"]
    chunks = streamed(list(CALL), style)
    called = [chunk["choices"][0]["delta"]["function_call"] for chunk in chunks if "function_call" in chunk["choices"][0]["delta"]]
    assert called[0] == {"name": "add", "arguments": ""}
    assert "".join(each["arguments"] for each in called) == '{"a": 1}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


def test_a_call_is_streamed_name_first_then_its_arguments() -> None:
    chunks = streamed(list(CALL), ChatStyle())
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    first, *rest = (delta["tool_calls"][0] for delta in deltas[1:-1])
    assert first.pop("id").startswith("call_")
    assert first == {"index": 0, "type": "function", "function": {"name": "add", "arguments": ""}}
    assert len(rest) > 1
    assert all(set(each) == {"index", "function"} and set(each["function"]) == {"arguments"} for each in rest)
    assert deltas[-1] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@given(st.data())
def test_however_it_is_cut_a_stream_says_what_the_whole_answer_says(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(THOUGHT_AND_CALLS) - 1), max_size=12)))
    pieces = [THOUGHT_AND_CALLS[a:b] for a, b in zip([0, *cuts], [*cuts, len(THOUGHT_AND_CALLS)], strict=True)]
    style = ChatStyle(with_logprobs=True, with_token_ids=True)
    message, chunks = whole([THOUGHT_AND_CALLS], style)["choices"][0]["message"], streamed(pieces, style)
    reported = joined(chunks)
    assert reported["content"] == message["content"]
    assert reported["reasoning_content"] == message["reasoning_content"]
    assert reported["tool_calls"] == [{"type": each["type"], "function": each["function"]} for each in message["tool_calls"]]
    choices = [chunk["choices"][0] for chunk in chunks]
    tokens = [token["token"] for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
    assert tokens == pieces
    assert [token for choice in choices for token in choice.get("token_ids", ())] == [*range(len(pieces)), 99]


def test_log_probabilities_and_ids_of_a_chat_answer() -> None:
    answer = answer_of(["a", "é"])
    body = json.loads(chat_completion(IDENTITY, [answer], ChatStyle(with_logprobs=True, with_token_ids=True)).model_dump_json())
    content = body["choices"][0]["logprobs"]["content"]
    assert content[1] == {
        "token": "é",
        "logprob": -0.5,
        "bytes": [195, 169],
        "top_logprobs": [
            {"token": "é", "logprob": -0.5, "bytes": [195, 169]},
            {"token": "z", "logprob": -9999.0, "bytes": [122]},
        ],
    }
    assert body["choices"][0]["token_ids"] == [0, 1, 99]
    assert body["prompt_token_ids"] == [7, 8, 9]
    assert body["service_tier"] == "default"


def test_what_was_not_requested_is_not_reported() -> None:
    plain = Answer(
        "a", AnswerParts("a"), [1], None, Started(request=1, prompt_tokens=3, cached_tokens=0), answer_of(["a"]).finished
    )
    identity = Identity.new("chatcmpl", Resolution("m", ServedModel("m:1", 0), "test"))
    body = json.loads(chat_completion(identity, [plain], ChatStyle()).model_dump_json())
    assert set(body) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert set(body["choices"][0]) == {"index", "message", "logprobs", "finish_reason", "stop_reason"}
    assert body["choices"][0]["logprobs"] is None


def test_usage_counts_the_prompt_once() -> None:
    body = chat_completion(IDENTITY, [answer_of(["a"]), answer_of(["b", "c"])], ChatStyle(num_choices=2))
    assert (body.usage.prompt_tokens, body.usage.completion_tokens, body.usage.total_tokens) == (3, 5, 8)
    assert [choice.index for choice in body.choices] == [0, 1]
    frames = ChatFrames(IDENTITY, Begun(), ChatStyle(num_choices=2, usage=UsageReporting.LAST))
    for choice, pieces in ((1, ["b", "c"]), (0, ["a"])):
        for event in events_of(pieces):
            frames.event(Indexed(choice, event))
    last = json.loads(frames.closing().decode().split("\n\n")[0].removeprefix("data: "))
    assert last["usage"]["total_tokens"] == 8


def test_usage_in_every_chunk_is_that_of_its_choice_so_far() -> None:
    chunks = streamed(["a", "b"], ChatStyle(usage=UsageReporting.ALWAYS))
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [0, 1, 2, 3]
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {3}


def test_the_prompts_tokens_come_with_the_first_chunk_only() -> None:
    chunks = streamed(["a", "b"], ChatStyle(with_token_ids=True))
    assert chunks[0]["prompt_token_ids"] == [7, 8, 9]
    assert all("prompt_token_ids" not in chunk for chunk in chunks[1:])


@pytest.mark.parametrize(
    ("prompt", "changes"),
    [
        (TextPrompt(text="hi"), {}),
        (ChatPrompt(messages=[]), {"reasoning_format": None}),
        (ChatPrompt(messages=[], tools=[TOOL]), {"reasoning_format": None, "tool_format": None}),
    ],
)
def test_plain_text_is_not_parsed(prompt: Prompt, changes: dict[str, Any]) -> None:
    assert AnswerParsing.of(msgspec.structs.replace(INFO, **changes), prompt) is None


def test_without_tools_a_call_is_text() -> None:
    assert parts_of(CALL, parsing(with_tools=False).parser(STARTED)) == AnswerParts(content=CALL)


def test_an_answer_may_go_on_with_the_prompts_thought() -> None:
    in_thought = Started(request=1, prompt_tokens=1, cached_tokens=0, in_thought=True)
    parts = parts_of("hm</think>yes", parsing().parser(in_thought))
    assert (parts.reasoning, parts.content) == ("hm", "yes")
