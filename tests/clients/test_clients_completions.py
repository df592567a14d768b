"""Completions through OpenAI's own client, with the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from tokenizers import Tokenizer

from model_registry.registry import open_registry
from tests.clients.conversations import MODEL

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def tokenizer(default_home: Path) -> Tokenizer:
    with open_registry(default_home) as registry:
        folder = registry.resolve(MODEL).variants[0].folder
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8)
    assert "Paris" in answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8)
    chunks = list(
        client.completions.create(
            model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
    usage = chunks[-1].usage
    assert usage is not None
    assert whole.usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)


def test_a_list_of_prompts_answers_each_as_alone(client: openai.OpenAI) -> None:
    prompts = [PROMPT, "Once upon a time", "def add(a, b):"]
    alone = [client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=8) for prompt in prompts]
    together = client.completions.create(model=MODEL, prompt=prompts, temperature=0, max_tokens=8)
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert [choice.text for choice in together.choices] == [each.choices[0].text for each in alone]
    assert together.usage is not None
    assert together.usage.prompt_tokens == sum(each.usage.prompt_tokens for each in alone if each.usage)


def test_token_ids_are_the_text_that_they_encode(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(PROMPT, add_special_tokens=False).ids
    by_text = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=6)
    by_ids = client.completions.create(model=MODEL, prompt=ids, temperature=0, max_tokens=6)
    assert by_ids.choices[0].text == by_text.choices[0].text
    two = client.completions.create(model=MODEL, prompt=[ids, ids], temperature=0, max_tokens=6)
    assert [choice.text for choice in two.choices] == [by_text.choices[0].text] * 2
    assert by_ids.usage is not None
    assert by_ids.usage.prompt_tokens == len(ids)


@pytest.mark.parametrize("streams", [False, True])
def test_an_echo_begins_with_the_prompt(client: openai.OpenAI, streams: bool) -> None:
    requested: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 4}
    plain = client.completions.create(**requested).choices[0].text
    if streams:
        text = "".join(chunk.choices[0].text for chunk in client.completions.create(**requested, echo=True, stream=True))
    else:
        text = client.completions.create(**requested, echo=True).choices[0].text
    assert text == PROMPT + plain


def test_a_token_outside_the_vocabulary_is_refused(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    with pytest.raises(openai.BadRequestError, match="outside the vocabulary") as refused:
        client.completions.create(model=MODEL, prompt=[1, 10**6])
    assert refused.value.param == "prompt"


def test_a_suffix_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt=PROMPT, suffix="the end")
    assert refused.value.param == "suffix"
