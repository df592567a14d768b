"""Calls in tags, one object each, as Hermes 2 Pro wrote them first: Qwen 2.5 and 3, SmolLM3 and many fine-tuned models.

<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runtime.protocol.request import ToolChoice
from runtime.text.constraints.lark import token
from runtime.text.formats.call_grammar import json_call, marked_calls
from runtime.text.formats.conversation import as_json, as_plain_turns, call_json, with_instructions, with_result_names
from runtime.text.formats.json_calls import read_closed_calls
from runtime.text.formats.protocol import Message, Tool
from runtime.text.formats.reader import AnswerParser, Reader, Script, ScriptedParser

OPEN, CLOSE = "<tool_call>", "</tool_call>"

# The text of Qwen's templates.
_INSTRUCTIONS = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


@dataclass(frozen=True, slots=True)
class Hermes:
    name: str = "hermes"
    special_tokens: tuple[str, ...] = (OPEN, CLOSE)

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        if native:
            return with_result_names(messages)
        shown = "\n".join(as_json(tool) for tool in tools)
        turns = as_plain_turns(messages, write_calls=_written, write_result=_result)
        return with_instructions(turns, _INSTRUCTIONS.format(tools=shown) if tools else None)

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        block = rf'"\n" call "\n" {token(CLOSE)}'
        return marked_calls(tools, choice, mark=OPEN, block=block, call=json_call(), between="\n")

    def parser(self) -> AnswerParser:
        return ScriptedParser(read_answer)


def read_answer(reader: Reader) -> Script[None]:
    """Text and calls in tags; the tag may hold an object, or a list of them."""
    while (yield from reader.emit_until((OPEN,))) is not None:
        yield from reader.attempt(partial(read_closed_calls, close=CLOSE))


def _written(calls: list[dict[str, Any]]) -> str:
    return "\n".join(f"{OPEN}\n{call_json(call)}\n{CLOSE}" for call in calls)


def _result(name: str, text: str) -> str:
    return f"<tool_response>\n{text}\n</tool_response>"
