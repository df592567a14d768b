"""From a request to a sequence: limits are named, defaults filled in, and nothing impossible gets as far as the queue."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runtime.batching.intake import Intake
from runtime.batching.sequence import Sequence
from runtime.engines.fake import ASSISTANT, EOS, USER, VOCAB_SIZE, ByteTokenizer
from runtime.engines.model_folder import GenerationDefaults
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.messages import Submit
from runtime.protocol.request import ChatPrompt, Prompt, SamplingParams, TextPrompt, TokensPrompt
from runtime.text.chat_prompts import ChatFormats
from runtime.text.chat_template import ChatTemplate
from runtime.text.formats.protocol import ReasoningFormat

CONTEXT = 20
HELLO = ChatPrompt(messages=[{"content": "Hello"}])


def prepare(prompt: Prompt, *, template: str | None = "<|user|>{{ messages[0].content }}<|assistant|>", **request: Any) -> Sequence:
    params = SamplingParams(**request.pop("params", {}))
    intake = Intake(
        ByteTokenizer(),
        None if template is None else ChatTemplate(template, {}),
        defaults=GenerationDefaults(temperature=0.6, top_k=20, top_p=0.9, min_p=0.1, repetition_penalty=1.1),
        context_length=CONTEXT,
        vocab_size=VOCAB_SIZE,
        clock=lambda: 100.0,
    )
    return intake.prepare(Submit(request=7, prompt=prompt, params=params, **request))


def test_each_kind_of_prompt_becomes_tokens() -> None:
    assert prepare(TextPrompt(text="é")).prompt.tolist() == [0xC3, 0xA9]
    assert prepare(TokensPrompt(token_ids=[3, 2, 1])).prompt.tolist() == [3, 2, 1]
    assert prepare(HELLO).prompt.tolist() == [USER, *b"Hello", ASSISTANT]


def test_what_was_not_requested_is_the_models_default() -> None:
    params = prepare(HELLO).params
    assert (params.temperature, params.top_k, params.top_p, params.min_p, params.repetition_penalty) == (0.6, 20, 0.9, 0.1, 1.1)
    assert params.typical_p == 1.0
    assert params.max_tokens == CONTEXT - 7


def test_what_was_requested_wins_also_when_it_is_zero() -> None:
    requested = {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "max_tokens": 3}
    params = prepare(HELLO, params=requested).params
    assert {name: getattr(params, name) for name in requested} == requested


def test_top_k_of_minus_one_is_off() -> None:
    assert prepare(HELLO, params={"top_k": -1}).params.top_k == 0


def test_max_tokens_ends_at_the_context() -> None:
    sequence = prepare(HELLO, params={"max_tokens": 10_000})
    assert sequence.params.max_tokens == CONTEXT - 7
    assert len(sequence.tokens) == CONTEXT


def test_deadlines_count_from_receipt() -> None:
    assert prepare(HELLO).deadline_at is None
    assert prepare(HELLO, deadline_s=2.5).deadline_at == 102.5
    assert prepare(HELLO).arrived_at == 100.0


def test_the_prompts_text_comes_back_if_requested() -> None:
    assert prepare(HELLO).prompt_text is None
    assert prepare(HELLO, return_prompt_text=True).prompt_text == "<|user|>Hello<|assistant|>"


def test_seeds_of_any_sign_and_size_are_taken_and_none_is_random() -> None:
    def first_draw(seed: int | None) -> float:
        return prepare(HELLO, params={"seed": seed}).rng.random()

    assert first_draw(-1) == first_draw(2**64 - 1)
    assert first_draw(5) == first_draw(5) != first_draw(6)
    assert first_draw(None) != first_draw(None)


@pytest.mark.parametrize(
    ("prompt", "field"),
    [(TextPrompt(text=""), "prompt"), (TokensPrompt(token_ids=[]), "prompt"), (HELLO, "conversation")],
)
def test_an_empty_prompt_is_refused(prompt: Prompt, field: str) -> None:
    with pytest.raises(InvalidRequest, match="empty") as caught:
        prepare(prompt, template="")
    assert caught.value.field == field


@pytest.mark.parametrize("size", [CONTEXT, 500])
def test_a_prompt_over_the_context_is_refused_with_both_numbers(size: int) -> None:
    with pytest.raises(InvalidRequest, match=f"maximum context length is {CONTEXT} tokens, but the prompt has {size}") as caught:
        prepare(TextPrompt(text="x" * size))
    assert caught.value.code == "context_length_exceeded"


def test_a_prompt_that_leaves_one_token_is_taken() -> None:
    assert prepare(TextPrompt(text="x" * (CONTEXT - 1))).params.max_tokens == 1


@pytest.mark.parametrize("bad", [-1, VOCAB_SIZE, 2**40])
def test_token_ids_outside_the_vocabulary_are_refused(bad: int) -> None:
    with pytest.raises(InvalidRequest, match=f"0 to {VOCAB_SIZE - 1}"):
        prepare(TokensPrompt(token_ids=[1, bad]))
    with pytest.raises(InvalidRequest, match=f"`logit_bias` names token {bad}"):
        prepare(HELLO, params={"logit_bias": {bad: 1.0}})
    with pytest.raises(InvalidRequest, match="stop_token_ids"):
        prepare(HELLO, params={"stop_token_ids": (bad,)})


@pytest.mark.parametrize("max_tokens", [0, -5])
def test_no_tokens_at_all_is_refused(max_tokens: int) -> None:
    with pytest.raises(InvalidRequest, match="at least 1") as caught:
        prepare(HELLO, params={"max_tokens": max_tokens})
    assert caught.value.field == "max_tokens"


def test_no_tokens_are_an_answer_where_the_prompt_is_to_be_scored() -> None:
    sequence = prepare(HELLO, params={"max_tokens": 0, "prompt_logprobs": 1})
    assert (sequence.params.max_tokens, len(sequence.tokens)) == (0, 7)


def test_a_prediction_is_a_draft_of_tokens_that_the_model_knows() -> None:
    class Larger(ByteTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return [VOCAB_SIZE if character == "?" else ord(character) for character in text]

    def draft_of(prediction: str) -> list[int]:
        intake = Intake(
            Larger(), None, defaults=GenerationDefaults(), context_length=CONTEXT, vocab_size=VOCAB_SIZE, clock=lambda: 0.0
        )
        params = SamplingParams(prediction=prediction)
        draft = intake.prepare(Submit(request=1, prompt=TokensPrompt(token_ids=[1]), params=params)).draft
        assert draft is not None
        return draft.prediction.tolist()

    assert draft_of("abc") == [*b"abc"]
    assert draft_of("ab?cd") == [*b"ab"]
    assert len(draft_of("a" * 10_000)) <= CONTEXT * Larger.longest_token
    assert prepare(HELLO).draft is None


def test_special_tokens_that_an_answer_is_written_with_are_shown() -> None:
    """Here <|user|> and <|assistant|> stand for a model's special tags."""
    formats = ChatFormats(reasoning=ReasoningFormat("tags", "<|user|>", "<|assistant|>"))
    intake = Intake(
        ByteTokenizer(),
        ChatTemplate("x", {}),
        defaults=GenerationDefaults(),
        context_length=CONTEXT,
        vocab_size=VOCAB_SIZE,
        clock=lambda: 0.0,
        formats=formats,
    )
    for prompt, expected in ((HELLO, "<|user|>a<|assistant|>"), (TextPrompt(text="x"), "a")):
        text = intake.prepare(Submit(request=1, prompt=prompt)).text
        assert "".join(map(text.feed, [USER, ord("a"), ASSISTANT, EOS])) == expected


@pytest.mark.parametrize("temperature", [math.nan, math.inf, -0.1])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prepare(HELLO, params={"temperature": temperature})
    assert caught.value.field == "temperature"


@pytest.mark.parametrize("temperature", [1e-6, 1e-50])
def test_a_temperature_too_small_to_divide_by_is_greedy(temperature: float) -> None:
    sequence = prepare(HELLO, params={"temperature": temperature})
    assert sequence.params.temperature == 0
    assert sequence.is_repeatable


def test_a_model_without_a_template_takes_no_chat() -> None:
    with pytest.raises(InvalidRequest, match="no chat template") as caught:
        prepare(HELLO, template=None)
    assert caught.value.code == "no_chat_template"
    assert prepare(TextPrompt(text="x"), template=None).prompt_len == 1


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized() -> None:
    class Unwilling(ByteTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            raise AssertionError("it was tokenized")

    intake = Intake(
        Unwilling(), None, defaults=GenerationDefaults(), context_length=CONTEXT, vocab_size=VOCAB_SIZE, clock=lambda: 0.0
    )
    with pytest.raises(InvalidRequest, match=r"is 20 tokens, but the prompt has at least \d+ tokens"):
        intake.prepare(Submit(request=1, prompt=TextPrompt(text="x" * 2_000_000)))
