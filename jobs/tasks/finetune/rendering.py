"""Examples as token ids with what is learned of them, by the code that renders and encodes prompts when the model is served.

A prompt and its answer are encoded apart, as they are when a model answers: the border is never inside a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.datasets.examples import Completion, Conversation, Example, Preference
from runtime.engines.model_folder import read_model_folder
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.messages import EngineOptions
from runtime.protocol.request import ChatPrompt
from runtime.text.chat_prompts import ChatFormats, ChatPrompts
from runtime.text.preparation import ModelPreparation
from runtime.text.tokenizer import ModelTokenizer

IGNORED = -100  # PyTorch's label of positions without loss


@dataclass(frozen=True, slots=True)
class Tokens:
    """input_ids, and the label of each: its own id where it is learned, else IGNORED. line: of the data."""

    line: int
    input_ids: list[int]
    labels: list[int]

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def num_learned(self) -> int:
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True, slots=True)
class PreferenceTokens:
    """A prompt as the model sees it, and two answers with their end, as token ids."""

    line: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """The number of tokens of the prompt with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


Rendered = Tokens | PreferenceTokens


class Renderer:
    """served: the folder of the variant that is served."""

    def __init__(self, served: Path) -> None:
        folder = read_model_folder(served)
        preparation = ModelPreparation(folder.chat_template, folder.special_tokens)
        template = None if folder.chat_template is None else preparation
        self._prompts = ChatPrompts(template, ChatFormats.of(EngineOptions(), folder.chat_template))
        self._tokenizer = ModelTokenizer(folder.tokenizer_path)
        self._has_template = template is not None and template.template_error is None
        self._end = min(folder.eos_ids)
        self.context_length = folder.context_length
        self.vocab_size = folder.vocab_size

    def tokens(self, example: Example) -> Tokens:
        """Raises InvalidRequest when the model's chat template refuses the messages, TypeError for a preference."""
        match example:
            case Conversation():
                return self._joined(example.line, self._turns(example))
            case Completion() if self._has_template and example.prompt:
                messages = [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.completion}]
                return self._joined(example.line, self._turns(Conversation(example.line, messages)))
            case Completion():
                return self._plain(example)
        raise TypeError("a preference has no single answer")

    def preference(self, example: Preference) -> PreferenceTokens:
        """Raises InvalidRequest."""
        prompt = self._text(example.messages, example.tools, answer=True)
        chosen, rejected = (
            _after(prompt, self._text([*example.messages, {"role": "assistant", "content": answer}], example.tools))
            for answer in (example.chosen, example.rejected)
        )
        encoded = [self._tokenizer.encode(text, add_special_tokens=False) for text in (prompt, chosen, rejected)]
        return PreferenceTokens(example.line, *encoded)

    def _turns(self, example: Conversation) -> Iterator[tuple[str, bool]]:
        """(text, whether it is learned), in order."""
        done = ""
        for number, message in enumerate(example.messages):
            if message["role"] != "assistant":
                continue
            prompt = self._text(example.messages[:number], example.tools, answer=True)
            whole = self._text(example.messages[: number + 1], example.tools)
            yield _after(done, prompt), False
            yield _after(prompt, whole), True
            done = whole

    def _text(self, messages: Iterable[Any], tools: Iterable[Any], *, answer: bool = False) -> str:
        plain, known = chat_messages(list(messages)), [dict(tool) for tool in tools]
        return self._prompts.text(ChatPrompt(messages=plain, tools=known or None, add_generation_prompt=answer))

    def _joined(self, line: int, pieces: Iterable[tuple[str, bool]]) -> Tokens:
        ids: list[int] = []
        labels: list[int] = []
        for text, is_learned in pieces:
            piece = self._tokenizer.encode(text, add_special_tokens=False)
            ids += piece
            labels += piece if is_learned else [IGNORED] * len(piece)
        return Tokens(line, ids, labels)

    def _plain(self, example: Completion) -> Tokens:
        prompt = self._tokenizer.encode(example.prompt, add_special_tokens=True)
        answer = [*self._tokenizer.encode(example.completion, add_special_tokens=False), self._end]
        return Tokens(example.line, prompt + answer, [IGNORED] * len(prompt) + answer)


def _after(beginning: str, text: str) -> str:
    """What follows. Raises InvalidRequest when the text begins otherwise."""
    if not text.startswith(beginning):
        raise InvalidRequest("The model's chat template rewrites earlier turns: only the last turn can be learned.")
    return text.removeprefix(beginning)


def chat_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages in the form of `ChatPrompt`: arguments of calls as objects, developer messages as system messages."""
    return [_message(message) for message in messages]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    plain = {**message, "content": message.get("content") or ""}
    if plain["role"] == "developer":
        plain["role"] = "system"
    if plain.get("tool_calls"):
        plain["tool_calls"] = [
            {**call, "function": {**call["function"], "arguments": arguments_of(call["function"]["arguments"])}}
            for call in plain["tool_calls"]
        ]
    return plain


def arguments_of(text: str) -> Mapping[str, Any] | None:
    """None when they are no JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
