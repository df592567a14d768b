"""Prompts as texts that become exactly their tokens, also with a tokenizer that puts a space and a token in front of every text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from runtime.batching.intake import Intake
from runtime.engines.fake import VOCAB_SIZE, ByteTokenizer
from runtime.engines.foundry.text_intake import TextIntake
from runtime.engines.model_folder import GenerationDefaults
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.messages import Submit
from runtime.protocol.request import ChatPrompt, Prompt, TokensPrompt
from runtime.text.chat_template import ChatTemplate
from runtime.text.tokenizer import ModelTokenizer
from runtime.text.tokenizer import Tokenizer as RuntimeTokenizer
from tests.doubles.engine_bench import text

TEMPLATE = "<s>{% for message in messages %}{{ message.content }}{% endfor %}"


def intake_of(tokenizer: RuntimeTokenizer, vocab_size: int) -> TextIntake:
    template = ChatTemplate(TEMPLATE, {})
    defaults = GenerationDefaults()
    inner = Intake(tokenizer, template, defaults=defaults, context_length=64, vocab_size=vocab_size, clock=lambda: 0.0)
    return TextIntake(inner)


@pytest.fixture
def llama(tmp_path: Path) -> TextIntake:
    """Tokens are characters; as in Llama 2, `▁` stands for a space and before every text, and `<s>` before that."""
    characters = ["<s>", "<unk>", "▁", *"abc"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(characters)}, [], unk_token="<unk>"))
    tokenizer.add_special_tokens(["<s>", "<unk>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return intake_of(ModelTokenizer(tmp_path / "tokenizer.json"), len(characters))


def prepared(intake: TextIntake, prompt: Prompt) -> tuple[str, list[int]]:
    request = intake.prepare(Submit(request=1, prompt=prompt))
    return request.text, request.sequence.prompt.tolist()


def test_a_text_gets_the_token_in_front_that_its_tokenizer_puts_there(llama: TextIntake) -> None:
    assert prepared(llama, text("ab c")) == ("<s>ab c", [0, 2, 3, 4, 2, 5])


def test_a_chat_is_the_text_that_its_template_wrote(llama: TextIntake) -> None:
    messages = [{"role": "user", "content": "ab"}]
    assert prepared(llama, ChatPrompt(messages=messages)) == ("<s>ab", [0, 2, 3, 4])


def test_tokens_are_taken_where_their_text_becomes_them() -> None:
    assert prepared(intake_of(ByteTokenizer(), VOCAB_SIZE), TokensPrompt(token_ids=[65, 66])) == ("AB", [65, 66])


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (TokensPrompt(token_ids=[0xF0, 0x9F]), "prompt"),  # half of a character
        (text("a\0b"), "prompt"),
        (ChatPrompt(messages=[{"role": "user", "content": "\0"}]), "conversation"),
    ],
)
def test_what_no_text_can_carry_is_refused(prompt: Any, field: str) -> None:
    with pytest.raises(InvalidRequest, match="text only") as refusal:
        prepared(intake_of(ByteTokenizer(), VOCAB_SIZE), prompt)
    assert refusal.value.field == field
