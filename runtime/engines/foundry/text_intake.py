"""From a submitted request to the text that a model will read, for models that take no tokens. Knows no queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model_registry.records import Capability
from runtime.batching.intake import Intake
from runtime.batching.sequence import Sequence
from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.messages import Submit
from runtime.protocol.request import ChatPrompt, Prompt, TextPrompt
from runtime.text.chat_prompts import ChatFormats
from runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A prepared request, and its prompt as the model will read it."""

    sequence: Sequence
    text: str

    @property
    def request(self) -> int:
        return self.sequence.request


class TextIntake:
    """intake: checks limits and resolves defaults, as for any engine."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    @property
    def formats(self) -> ChatFormats:
        return self._intake.formats

    @property
    def tokenizer(self) -> Tokenizer:
        return self._intake.tokenizer

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._intake.capabilities

    @property
    def template_error(self) -> str | None:
        return self._intake.template_error

    def close(self) -> None:
        self._intake.close()

    def tokens(self, prompt: Prompt) -> list[int]:
        """Tokens, as for any engine. Raises InvalidRequest."""
        return self._intake.tokens(prompt)

    def prepare(self, submit: Submit) -> TextRequest:
        """Raises InvalidRequest, also where no text would become exactly the prompt's tokens."""
        sequence = self._intake.prepare(submit)
        ids = sequence.prompt.tolist()
        for text in self._readings(submit.prompt, ids):
            if "\0" not in text and self.tokenizer.encode(text, add_special_tokens=False) == ids:
                return TextRequest(sequence, text)
        raise InvalidRequest(
            "This model takes text only, and these tokens are not what their text becomes. Send text without NUL characters.",
            field=Field.CONVERSATION if isinstance(submit.prompt, ChatPrompt) else Field.PROMPT,
        )

    def _readings(self, prompt: Prompt, ids: list[int]) -> Iterator[str]:
        """What the tokens may have been made of."""
        match prompt:
            case ChatPrompt():
                yield self._intake.text_of(prompt)
            case TextPrompt(text=text):
                yield text
                yield self.tokenizer.decode(ids[:1]) + text  # the tokenizer put a token in front
            case _:
                yield self.tokenizer.decode(ids)
