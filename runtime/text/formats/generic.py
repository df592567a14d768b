"""For chat models that were not trained on calls, or on a notation that is unknown here: the system message describes the notation.

{"tool_calls": [{"name": "get_weather", "arguments": {"city": "Paris"}}]}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.protocol.request import ToolChoice
from runtime.text.formats.call_grammar import calls_or_text, json_call
from runtime.text.formats.conversation import as_json, as_plain_turns, call_json, function_of, with_instructions, with_result_names
from runtime.text.formats.json_calls import read_calls_or_text
from runtime.text.formats.protocol import Message, Tool
from runtime.text.formats.reader import AnswerParser, ScriptedParser

_TOOLS = """You can call these tools:
{tools}

"""
_INSTRUCTIONS = """To call tools, answer with one JSON object and no other text:
{"tool_calls": [{"name": "the tool's name", "arguments": {"parameter": "value"}}]}
If no tool is needed, answer in plain text."""


@dataclass(frozen=True, slots=True)
class Generic:
    name: str = "generic"
    special_tokens: tuple[str, ...] = ()

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        if native:
            return with_instructions(with_result_names(messages), _INSTRUCTIONS if tools else None)
        shown = "\n".join(as_json(function_of(tool)) for tool in tools)
        turns = as_plain_turns(messages, write_calls=_written, write_result=_result)
        return with_instructions(turns, _TOOLS.format(tools=shown) + _INSTRUCTIONS if tools else None)

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        return calls_or_text(tools, choice, block=r'"\"tool_calls\": [" calls "]}"', call=json_call())

    def parser(self) -> AnswerParser:
        return ScriptedParser(read_calls_or_text)


def _written(calls: list[dict[str, Any]]) -> str:
    return f'{{"tool_calls": [{", ".join(call_json(call) for call in calls)}]}}'


def _result(name: str, text: str) -> str:
    return f"Result of {name}: {text}" if name else f"Result: {text}"
