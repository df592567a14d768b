"""What a worker answers of tokens is what its engine would compute, whichever engine it is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from runtime.batching.engine import Limits
from runtime.batching.intake import Intake
from runtime.engines.fake import ASSISTANT, CONTEXT_LENGTH, USER, VOCAB_SIZE, ByteTokenizer, build_fake_engine
from runtime.engines.foundry.text_engine import TextEngine
from runtime.engines.foundry.text_intake import TextIntake
from runtime.engines.genai.engine import GenaiEngine
from runtime.engines.model_folder import GenerationDefaults
from runtime.engines.protocol import Engine
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.messages import Detokenize, Detokenized, EngineOptions, Submit, Tokenize, Tokenized
from runtime.protocol.request import ChatPrompt, Prompt, TextPrompt, TokensPrompt
from runtime.text.chat_template import ChatTemplate
from runtime.worker.intake import answered

CHAT = ChatPrompt(messages=[{"role": "user", "content": "hi"}])
FAKE = build_fake_engine(EngineOptions())
TEMPLATE = "{% for message in messages %}<|user|>{{ message.content }}{% endfor %}<|assistant|>"


def genai_and_text_engines() -> list[Engine]:
    """Around nothing: neither runs a model here."""
    info = FAKE.info
    nothing = cast(Any, None)
    intake = Intake(
        ByteTokenizer(),
        ChatTemplate(TEMPLATE, {}),
        defaults=GenerationDefaults(),
        context_length=CONTEXT_LENGTH,
        vocab_size=VOCAB_SIZE,
        clock=lambda: 0.0,
    )
    limits = Limits(EngineOptions(), 1, frozenset())
    text = TextEngine(info, nothing, TextIntake(intake), EngineOptions(), kv_budget_bytes=1, resident_bytes=lambda: 0)
    return [GenaiEngine(info, nothing, intake, limits, resident_bytes=lambda: 0), text]


@pytest.fixture(params=[FAKE, *genai_and_text_engines()], ids=lambda engine: type(engine).__name__)
def engine(request: pytest.FixtureRequest) -> Engine:
    return cast(Engine, request.param)


def tokens_of(engine: Engine, prompt: Prompt) -> Tokenized:
    answer = answered(engine, Tokenize(request=7, prompt=prompt))
    assert isinstance(answer, Tokenized)
    return answer


def test_the_tokens_of_a_conversation_are_those_of_its_template(engine: Engine) -> None:
    assert tokens_of(engine, CHAT) == Tokenized(
        request=7,
        token_ids=[USER, ord("h"), ord("i"), ASSISTANT],
        tokens=[b"<|user|>", b"h", b"i", b"<|assistant|>"],
        context_length=CONTEXT_LENGTH,
    )


@pytest.mark.parametrize("prompt", [CHAT, TextPrompt(text="h\u00e9"), TokensPrompt(token_ids=[1, 2])])
def test_they_are_those_of_the_same_request(prompt: Prompt) -> None:
    assert tokens_of(FAKE, prompt).token_ids == FAKE.prepare(Submit(request=1, prompt=prompt)).prompt.tolist()


def test_a_prompt_that_is_too_long_or_empty_is_tokenized_all_the_same(engine: Engine) -> None:
    assert len(tokens_of(engine, TextPrompt(text="x" * (CONTEXT_LENGTH + 1))).token_ids) == CONTEXT_LENGTH + 1
    assert tokens_of(engine, TextPrompt(text="")).token_ids == []


def test_megabytes_are_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="at least") as refused:
        tokens_of(engine, TextPrompt(text="x" * (2 << 20)))
    assert refused.value.field == "prompt"


def test_tokens_become_text_with_the_special_ones_written_out(engine: Engine) -> None:
    answer = answered(engine, Detokenize(request=7, token_ids=[USER, 0xC3, 0xA9, ASSISTANT]))
    assert answer == Detokenized(request=7, text="<|user|>\u00e9<|assistant|>")


@pytest.mark.parametrize("token", [-1, VOCAB_SIZE])
def test_an_id_that_is_no_token_is_refused(engine: Engine, token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"0 to {VOCAB_SIZE - 1}") as refused:
        answered(engine, Detokenize(request=7, token_ids=[1, token]))
    assert refused.value.field == "token_ids"
