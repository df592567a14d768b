"""The two interfaces that a family of models implements: how it calls tools, and how it marks the thought before an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from runtime.protocol.request import ToolChoice
from runtime.text.formats.reader import AnswerParser, Reader, ReasoningDelta, Script

Message = dict[str, Any]
Tool = dict[str, Any]


class ToolFormat(Protocol):
    """Stateless. `tools` as in `ChatPrompt`."""

    @property
    def name(self) -> str:
        """The name in settings and `ModelInfo.tool_format`: `hermes`, `llama3`, `mistral`..."""
        ...

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Special tokens that calls are written with: the parser needs to see them, so they must not be skipped."""
        ...

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        """The conversation as this family's templates take it. Without tools it may still hold calls and results.

        native: the chat template itself writes tools, calls and results, and is given the tools beside. Otherwise tools become
        part of the system message, calls text of the assistant, results a turn of the user.
        """
        ...

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        """A Lark grammar (llguidance's) of the whole answer. There are tools, and `choice.names` are among them.

        AUTO: any text, and calls wherever the model begins one. REQUIRED: calls only. Arguments follow each tool's schema; what
        no grammar can express is passed over. Raises InvalidRequest where the tool is strict.
        """
        ...

    def parser(self) -> AnswerParser:
        """A parser for one answer, without its reasoning."""
        ...


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    """open, close: the tags around a thought; special tokens of some models, text of others."""

    name: str
    open: str
    close: str

    def ends_in_thought(self, prompt: str) -> bool:
        """Whether the rendered prompt has opened a thought, which the answer then only closes."""
        return prompt.rstrip().endswith(self.open)

    def read(self, reader: Reader, *, in_thought: bool) -> Script[None]:
        """Emits the reasoning, if the answer begins with it. in_thought: whether the prompt ended in it."""
        place = reader.at
        yield from reader.spaces()
        if not (yield from reader.accept(self.open)) and not in_thought:
            reader.back_to(place)
            return
        yield from reader.spaces()
        if (yield from reader.emit_until((self.close,), ReasoningDelta)) is not None:
            yield from reader.spaces()


THINK = ReasoningFormat("think", "<think>", "</think>")  # DeepSeek R1, Qwen 3, SmolLM3, Phi-4-reasoning
MISTRAL = ReasoningFormat("mistral", "[THINK]", "[/THINK]")  # Magistral, Ministral 3

REASONING_FORMATS: Mapping[str, ReasoningFormat] = MappingProxyType({known.name: known for known in (THINK, MISTRAL)})
