"""Mistral's calls, after a special token: one list, or, since the tokenizers of 2025, a token per call and no list.

[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]
[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.protocol.request import ToolChoice
from runtime.text.constraints.lark import token
from runtime.text.formats.call_grammar import json_call, marked_calls
from runtime.text.formats.conversation import as_json, as_plain_turns, call_json, calls_of, with_instructions, with_result_names
from runtime.text.formats.json_calls import read_calls
from runtime.text.formats.protocol import Message, Tool
from runtime.text.formats.reader import AnswerParser, Reader, Script, ScriptedParser

MARK, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
MAX_HEAD_CHARS = 256  # of a call's name, its id, and what separates them

_INSTRUCTIONS = """You can call these tools:
[AVAILABLE_TOOLS]{tools}[/AVAILABLE_TOOLS]

To call tools, answer in this form and with no other text:
[TOOL_CALLS][{{"name": "the tool's name", "arguments": {{"parameter": "value"}}}}]"""


@dataclass(frozen=True, slots=True)
class Mistral:
    """in_list: calls are written as one list. Both ways are read."""

    name: str = "mistral"
    special_tokens: tuple[str, ...] = (MARK, ARGS, CALL_ID)
    in_list: bool = True

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        if native:
            return [_with_short_ids(message) for message in with_result_names(messages)]
        turns = as_plain_turns(messages, write_calls=_written, write_result=_result)
        return with_instructions(turns, _INSTRUCTIONS.format(tools=as_json(list(tools))) if tools else None)

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        if self.in_list:
            return marked_calls(tools, choice, mark=MARK, block='" "? "[" calls "]"', call=json_call(), between=None)
        return marked_calls(tools, choice, mark=MARK, block="call", call=f'"NAME" {token(ARGS)} ARGUMENTS', between="")

    def parser(self) -> AnswerParser:
        return ScriptedParser(_read_answer)


def _read_answer(reader: Reader) -> Script[None]:
    while (yield from reader.emit_until((MARK,))) is not None:
        yield from reader.attempt(_read_block)


def _read_block(reader: Reader) -> Script[bool]:
    yield from reader.spaces()
    if (yield from reader.peek()) in ("[", "{"):
        return (yield from read_calls(reader))
    head = yield from reader.until("{", MAX_HEAD_CHARS)
    found = re.fullmatch(r"([\w.-]+)\s*(?:\[CALL_ID\]\s*\w*\s*)?(?:\[ARGS\]\s*)?", head or "")
    if found is None:
        return False
    reader.back_to(reader.at - 1)
    reader.begin_call(found[1])
    yield from reader.json(reader.emit_arguments)
    return True


def _with_short_ids(message: Message) -> Message:
    """The templates refuse ids that are not nine letters and digits."""
    if message["role"] == "tool" and message.get("tool_call_id"):
        return {**message, "tool_call_id": _short_id(message["tool_call_id"])}
    if calls := calls_of(message):
        return {**message, "tool_calls": [{**call, "id": _short_id(call.get("id") or "")} for call in calls]}
    return message


def _short_id(id_: str) -> str:
    """The same for the same id."""
    return id_ if re.fullmatch(r"[A-Za-z0-9]{9}", id_) else hashlib.sha256(id_.encode()).hexdigest()[:9]


def _written(calls: list[dict[str, Any]]) -> str:
    return f"{MARK}[{', '.join(call_json(call) for call in calls)}]"


def _result(name: str, text: str) -> str:
    return f"[TOOL_RESULTS]{text}[/TOOL_RESULTS]"
