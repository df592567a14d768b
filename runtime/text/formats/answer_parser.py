"""One parser for a whole answer: first its thought, then its text and its calls. Knows no family."""

from __future__ import annotations

from functools import partial

from runtime.text.formats.protocol import ReasoningFormat, ToolFormat
from runtime.text.formats.reader import AnswerParser, ContentDelta, Delta, ScriptedParser


def answer_parser(
    reasoning: ReasoningFormat | None, tools: ToolFormat | None, *, in_thought: bool = False, calls_only: bool = False
) -> AnswerParser:
    """reasoning, tools: None where the answer is to be text alone. in_thought: the prompt has already opened the thought.

    calls_only: the answer must call something, so that its text can only be the beginning of a call that was cut.
    """
    body: AnswerParser = tools.parser() if tools is not None else _PlainText()
    if calls_only:
        body = _CallsOnly(body)
    if reasoning is None:
        return body
    return _ThoughtFirst(ScriptedParser(partial(reasoning.read, in_thought=in_thought)), body)


class _ThoughtFirst:
    """The first parser until it is done, then the second on what was left."""

    __slots__ = ("_body", "_thought")

    def __init__(self, thought: ScriptedParser, body: AnswerParser) -> None:
        self._thought = thought
        self._body = body

    def feed(self, text: str) -> list[Delta]:
        if self._thought.is_done:
            return self._body.feed(text)
        return self._thought.feed(text) + self._hand_over()

    def finish(self) -> list[Delta]:
        deltas = [] if self._thought.is_done else self._thought.finish() + self._hand_over()
        return deltas + self._body.finish()

    def _hand_over(self) -> list[Delta]:
        return self._body.feed(self._thought.take_rest()) if self._thought.is_done else []


class _CallsOnly:
    __slots__ = ("_parser",)

    def __init__(self, parser: AnswerParser) -> None:
        self._parser = parser

    def feed(self, text: str) -> list[Delta]:
        return [delta for delta in self._parser.feed(text) if not isinstance(delta, ContentDelta)]

    def finish(self) -> list[Delta]:
        return [delta for delta in self._parser.finish() if not isinstance(delta, ContentDelta)]


class _PlainText:
    __slots__ = ()

    def feed(self, text: str) -> list[Delta]:
        return [ContentDelta(text)] if text else []

    def finish(self) -> list[Delta]:
        return []
