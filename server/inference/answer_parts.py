"""An answer in its parts: what is for the reader, what was thought, which tools are called. Of no dialect.

Owns the ids of calls; the formats that models write calls and thoughts in are `runtime/text/formats`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from runtime.protocol.events import Started
from runtime.protocol.messages import ModelInfo
from runtime.protocol.request import ChatPrompt, Prompt, ToolMode
from runtime.text.formats.answer_parser import answer_parser
from runtime.text.formats.protocol import ReasoningFormat, ToolFormat
from runtime.text.formats.reader import AnswerParser, ContentDelta, Delta, ReasoningDelta, ToolCallArguments, ToolCallBegin
from runtime.text.formats.recognition import reasoning_format_by_name, tool_format_by_name


@dataclass(frozen=True, slots=True)
class ToolCall:
    """arguments: JSON text of an object, cut where the answer was."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AnswerParts:
    content: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()


class AnswerParsing:
    """How the answers to one prompt are parsed: by the model's formats, restricted to what the prompt allows."""

    def __init__(self, reasoning: ReasoningFormat | None, tools: ToolFormat | None, *, calls_only: bool = False) -> None:
        self._reasoning = reasoning
        self._tools = tools
        self._calls_only = calls_only

    @classmethod
    def of(cls, info: ModelInfo, prompt: Prompt) -> AnswerParsing | None:
        """None: every answer is content as it is."""
        if not isinstance(prompt, ChatPrompt) or not (info.reasoning_format or (info.tool_format and prompt.tools)):
            return None
        reasoning = reasoning_format_by_name(info.reasoning_format) if info.reasoning_format else None
        tools = tool_format_by_name(info.tool_format) if info.tool_format and prompt.tools else None
        return cls(reasoning, tools, calls_only=tools is not None and prompt.tool_choice.mode is ToolMode.REQUIRED)

    def parser(self, started: Started) -> AnswerParser:
        return answer_parser(self._reasoning, self._tools, in_thought=started.in_thought, calls_only=self._calls_only)


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def parts_of(text: str, parser: AnswerParser | None) -> AnswerParts:
    """A whole answer."""
    if parser is None:
        return AnswerParts(content=text)
    return joined([*parser.feed(text), *parser.finish()])


def joined(deltas: Iterable[Delta]) -> AnswerParts:
    content, reasoning = [], []
    names: list[str] = []
    arguments: list[list[str]] = []
    for delta in deltas:
        match delta:
            case ContentDelta(text=text):
                content.append(text)
            case ReasoningDelta(text=text):
                reasoning.append(text)
            case ToolCallBegin(name=name):
                names.append(name)
                arguments.append([])
            case ToolCallArguments(index=index, text=text):
                arguments[index].append(text)
    calls = tuple(ToolCall(new_call_id(), name, "".join(pieces)) for name, pieces in zip(names, arguments, strict=True))
    return AnswerParts("".join(content), "".join(reasoning), calls)
