"""Phi-4-mini's calls: one list between special tokens; some templates require a list after the word `functools` instead.

<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]<|/tool_call|>
functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runtime.protocol.request import ToolChoice
from runtime.text.constraints.lark import token
from runtime.text.formats.call_grammar import json_call, marked_calls
from runtime.text.formats.conversation import as_json, as_plain_turns, call_json, function_of, text_of
from runtime.text.formats.json_calls import read_calls, read_closed_calls
from runtime.text.formats.protocol import Message, Tool
from runtime.text.formats.reader import AnswerParser, Reader, Script, ScriptedParser

OPEN, CLOSE, FUNCTOOLS = "<|tool_call|>", "<|/tool_call|>", "functools"

_SYSTEM = "You are a helpful assistant with some tools."


@dataclass(frozen=True, slots=True)
class Phi4:
    """functools: the notation that the template requires. Both are read."""

    name: str = "phi4"
    special_tokens: tuple[str, ...] = (OPEN, CLOSE)
    functools: bool = False

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        """The model's own template takes the tools as the system message's `tools`, and calls and results as text only."""
        turns = as_plain_turns(messages, write_calls=self._written, write_result=_result, result_role="tool" if native else "user")
        if not tools:
            return turns
        first = turns[0] if turns and turns[0]["role"] == "system" else {"role": "system", "content": _SYSTEM}
        shown = as_json([function_of(tool) for tool in tools])
        if native:
            system = {**first, "tools": shown}
        else:
            system = {**first, "content": f"{text_of(first['content'])}<|tool|>{shown}<|/tool|>"}
        return [system, *(turns[1:] if turns and turns[0] is first else turns)]

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        if self.functools:
            return marked_calls(tools, choice, mark=f"{FUNCTOOLS}[", block='calls "]"', call=json_call(), between=None)
        block = f'"[" calls "]" {token(CLOSE)}'
        return marked_calls(tools, choice, mark=OPEN, block=block, call=json_call(), between=None)

    def parser(self) -> AnswerParser:
        return ScriptedParser(_read_answer)

    def _written(self, calls: list[dict[str, Any]]) -> str:
        listed = f"[{', '.join(call_json(call) for call in calls)}]"
        return f"{FUNCTOOLS}{listed}" if self.functools else f"{OPEN}{listed}{CLOSE}"


def _read_answer(reader: Reader) -> Script[None]:
    while (mark := (yield from reader.emit_until((OPEN, f"{FUNCTOOLS}[")))) is not None:
        yield from reader.attempt(partial(read_closed_calls, close=CLOSE) if mark == OPEN else _read_functools)


def _read_functools(reader: Reader) -> Script[bool]:
    reader.back_to(reader.at - 1)
    return (yield from read_calls(reader))


def _result(name: str, text: str) -> str:
    return text
