"""Completions' answers, whole and streamed: echoes, log probabilities, the best of several. On events, without HTTP."""

from __future__ import annotations

import json

import msgspec
import pytest

from runtime.protocol.events import Started, TokenLogprob
from server.dialects.openai.completion_frames import CompletionFrames, CompletionStyle
from server.dialects.openai.completions import best, completion
from server.inference.answer_parts import AnswerParts
from server.inference.inference import Answer, Indexed
from tests.server.answer_events import IDENTITY, STARTED, answer_of, events_of, logprob

pytestmark = pytest.mark.unit

PROMPT = Started(
    request=1,
    prompt_tokens=3,
    cached_tokens=0,
    prompt_text="abé",
    prompt_token_ids=[7, 8, 9],
    prompt_logprobs=[None, logprob("b", -1.0), logprob("é", float("-inf"))],
)


def echoing(pieces: list[str]) -> Answer:
    answer = answer_of(pieces)
    return Answer(answer.text, answer.parts, answer.token_ids, answer.logprobs, PROMPT, answer.finished)


def test_an_echo_has_the_prompts_log_probabilities() -> None:
    style = CompletionStyle(with_logprobs=True, with_token_ids=True)
    choice = json.loads(completion(IDENTITY, [echoing(["c", "d"])], style).model_dump_json())["choices"][0]
    assert choice["text"] == "abécd"
    assert choice["logprobs"] == {
        "tokens": ["a", "b", "é", "c", "d"],
        "token_logprobs": [None, -1.0, -9999.0, -0.5, -0.5],
        "top_logprobs": [
            None,
            {"b": -1.0, "z": -9999.0},
            {"é": -9999.0, "z": -9999.0},
            {"c": -0.5, "z": -9999.0},
            {"d": -0.5, "z": -9999.0},
        ],
        "text_offset": [0, 1, 2, 3, 4],
    }
    assert (choice["prompt_token_ids"], choice["token_ids"]) == ([7, 8, 9], [0, 1, 99])
    assert "prompt_logprobs" not in choice


def test_an_echo_is_streamed_first() -> None:
    frames = CompletionFrames(IDENTITY, lambda choice: PROMPT, CompletionStyle(with_logprobs=True))
    payload = b"".join(frames.event(Indexed(0, event)) for event in events_of(["c", "d"]))
    choices = [json.loads(each.removeprefix("data: "))["choices"][0] for each in payload.decode().split("\n\n") if each]
    assert "".join(choice["text"] for choice in choices) == "abécd"
    reported = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    assert [token for each in reported for token in each["tokens"]] == ["a", "b", "é", "c", "d"]
    assert [offset for each in reported for offset in each["text_offset"]] == [0, 1, 2, 3, 4]
    assert choices[-1]["finish_reason"] == "stop"


def test_a_character_of_several_tokens_has_one_offset() -> None:
    started = Started(
        request=1,
        prompt_tokens=4,
        cached_tokens=0,
        prompt_text="€b",
        prompt_logprobs=[None, *(TokenLogprob(i, part, -1.0, []) for i, part in enumerate((b"\x82", b"\xac", b"b")))],
    )
    answer = answer_of([])
    echoed = Answer("", AnswerParts(), [], [], started, answer.finished)
    (choice,) = completion(IDENTITY, [echoed], CompletionStyle(with_logprobs=True)).choices
    assert choice.logprobs is not None
    assert choice.logprobs.text_offset == [0, 0, 0, 1]
    assert choice.logprobs.tokens == ["\ufffd", "\ufffd", "\ufffd", "b"]


def test_a_prompts_log_probabilities_by_id() -> None:
    choice = completion(IDENTITY, [echoing(["c"])], CompletionStyle(with_prompt_logprobs=True)).choices[0]
    assert json.loads(choice.model_dump_json())["prompt_logprobs"] == [
        None,
        {"1": {"logprob": -1.0, "rank": 1, "decoded_token": "b"}, "2": {"logprob": -9999.0, "rank": 2, "decoded_token": "z"}},
        {"1": {"logprob": -9999.0, "rank": 1, "decoded_token": "é"}, "2": {"logprob": -9999.0, "rank": 2, "decoded_token": "z"}},
    ]


def with_mean(mean: float) -> Answer:
    answer = answer_of(["a", "b"])
    finished = msgspec.structs.replace(answer.finished, cumulative_logprob=2 * mean)
    return Answer(str(mean), answer.parts, answer.token_ids, answer.logprobs, STARTED, finished)


def test_the_best_are_those_of_the_highest_log_probability_per_token() -> None:
    first, second = [with_mean(mean) for mean in (-3.0, -1.0, -2.0)], [with_mean(mean) for mean in (-6.0, -5.0, -4.0)]
    assert [answer.text for answer in best(first, 2)] == ["-1.0", "-2.0"]
    assert [answer.text for answer in best(first, 3)] == ["-3.0", "-1.0", "-2.0"]
    body = completion(IDENTITY, [*first, *second], CompletionStyle(num_choices=1, num_generated=3))
    assert [(choice.index, choice.text) for choice in body.choices] == [(0, "-1.0"), (1, "-4.0")]
    assert body.usage is not None
    assert (body.usage.prompt_tokens, body.usage.completion_tokens) == (6, 18)
