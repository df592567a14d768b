"""What `text_engine` needs of a model that takes a text and gives one, and the text that it makes of a submitted request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from model_registry.records import Capability
from runtime.batching.intake import Intake
from runtime.batching.sequence import ResolvedParams, Sequence
from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.events import FinishReason
from runtime.protocol.messages import Submit
from runtime.protocol.request import ChatPrompt, Prompt, SamplingParams, TextPrompt
from runtime.text.chat_prompts import ChatFormats
from runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of an answer, with the tokens that the model counted."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class Answer(Protocol):
    """One text being answered."""

    def run(self, on_text: Callable[[str], None]) -> Answered:
        """Blocks; calls `on_text` with whole characters as they arrive. After a cancel it may raise any exception."""
        ...

    def cancel(self) -> None:
        """Makes `run` end as soon as the model can, at the latest with its next text. Thread-safe.

        Does nothing when it has ended.
        """
        ...


class TextModel(Protocol):
    def check(self, requested: SamplingParams) -> None:
        """Raises InvalidRequest for what this model cannot do. Thread-safe."""
        ...

    def answer(self, text: str, params: ResolvedParams) -> Answer:
        """Begins nothing yet."""
        ...

    def close(self) -> None:
        """Releases the model. To be called when no answer runs."""
        ...


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
