"""Chats through OpenAI's own client, with the real model."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.clients.conversations import MODEL, QUESTION, text_of, user


def test_an_answer_is_right_and_counted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=user(QUESTION), temperature=0)
    (choice,) = answer.choices
    assert "4" in (choice.message.content or "")
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens > 1
    assert answer.model == MODEL


def test_a_stream_says_the_same_and_counts_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=user(QUESTION), temperature=0)
    stream = client.chat.completions.create(
        model=MODEL, messages=user(QUESTION), temperature=0, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert last.choices == []
    assert last.usage is not None
    assert whole.usage is not None
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_a_stream_has_no_usage_unless_requested(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=user(QUESTION), max_tokens=3, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_max_tokens_ends_with_length(client: openai.OpenAI) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        limit: dict[str, Any] = {field: 5}
        answer = client.chat.completions.create(model=MODEL, messages=user("Tell me a long story."), **limit)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 5


@pytest.mark.parametrize("streams", [False, True])
def test_a_stop_text_ends_the_answer_before_it(client: openai.OpenAI, streams: bool) -> None:
    """`m is` begins inside one token and ends with another."""
    whole = client.chat.completions.create(model=MODEL, messages=user(QUESTION), temperature=0).choices[0].message.content or ""
    assert "m is" in whole
    requested: dict[str, Any] = {"model": MODEL, "messages": user(QUESTION), "temperature": 0, "stop": ["m is", "never"]}
    if streams:
        chunks = list(client.chat.completions.create(**requested, stream=True))
        text, reason = text_of(chunks), chunks[-1].choices[0].finish_reason
    else:
        choice = client.chat.completions.create(**requested).choices[0]
        text, reason = choice.message.content or "", choice.finish_reason
    assert text == whole[: whole.index("m is")]
    assert reason == "stop"


def test_text_that_is_not_ascii_goes_in_and_out_whole(client: openai.OpenAI) -> None:
    prompt = "Répète : 你好 мир 🎉👩‍👩‍👧 ‏שלום"
    echoed = client.completions.create(model=MODEL, prompt=prompt, echo=True, max_tokens=1).choices[0].text
    assert echoed.startswith(prompt)
    requested: dict[str, Any] = {"model": MODEL, "messages": user(prompt), "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**requested).choices[0].message.content
    assert text_of(client.chat.completions.create(**requested, stream=True)) == whole


def test_a_prompt_that_grows_finds_its_beginning_cached(client: openai.OpenAI) -> None:
    messages = user("In a hole in the ground there lived a hobbit. Who lived there?")
    cached = []
    for _ in range(3):
        answer = client.chat.completions.create(model=MODEL, messages=messages, temperature=0, max_tokens=8)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached.append(answer.usage.prompt_tokens_details.cached_tokens or 0)
        messages += [{"role": "assistant", "content": answer.choices[0].message.content or ""}, *user("Tell me more.")]
    assert cached[0] < cached[1] < cached[2]


def test_a_prompt_of_seven_thousand_tokens_is_answered(client: openai.OpenAI) -> None:
    text = "hello " * 7_000 + "Say hello."
    answer = client.chat.completions.create(model=MODEL, messages=user(text), temperature=0, max_tokens=4)
    assert answer.usage is not None
    assert 7_000 < answer.usage.prompt_tokens < 8_192
    assert answer.choices[0].message.content


def test_a_prompt_over_the_context_names_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"8192 tokens, but the prompt has 9\d\d\d tokens") as refused:
        client.chat.completions.create(model=MODEL, messages=user("hello " * 9_000))
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


def test_several_answers_with_their_probabilities(client: openai.OpenAI) -> None:
    requested: dict[str, Any] = {"model": MODEL, "messages": user(QUESTION), "n": 3, "logprobs": True, "top_logprobs": 2}
    answer = client.chat.completions.create(**requested, temperature=1, seed=1, max_tokens=12)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert choice.logprobs is not None
        places = choice.logprobs.content or []
        assert "".join(place.token for place in places) == choice.message.content
        assert all(place.logprob <= 0 and len(place.top_logprobs) == 2 for place in places)
