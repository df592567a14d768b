"""Gemma 2 and 3, whose templates know no tools: the first user turn describes them, as Google's guide recommends.

{"name": "get_weather", "parameters": {"city": "Paris"}}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.protocol.request import ToolChoice
from runtime.text.formats.call_grammar import calls_or_text, json_call
from runtime.text.formats.conversation import as_json, as_plain_turns, call_json, function_of, text_of, with_result_names
from runtime.text.formats.json_calls import read_calls_or_text
from runtime.text.formats.protocol import Message, Tool
from runtime.text.formats.reader import AnswerParser, ScriptedParser

_INSTRUCTIONS = """You have access to functions. If you decide to invoke any of the function(s), you MUST put it in the format of
{{"name": function name, "parameters": dictionary of argument name and its value}}

You SHOULD NOT include any other text in the response if you call a function
{tools}

"""


@dataclass(frozen=True, slots=True)
class Gemma:
    name: str = "gemma"
    special_tokens: tuple[str, ...] = ()

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        if native:
            return with_result_names(messages)
        turns = as_plain_turns(messages, write_calls=_written, write_result=_result)
        if not tools:
            return turns
        instructions = _INSTRUCTIONS.format(tools=as_json([function_of(tool) for tool in tools]))
        for i, turn in enumerate(turns):
            if turn["role"] == "user":
                turns[i] = {**turn, "content": instructions + text_of(turn.get("content"))}
                return turns
        return [{"role": "user", "content": instructions}, *turns]

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        block = 'call ("; {" call)*' if choice.parallel else "call"
        return calls_or_text(tools, choice, block=block, call=json_call("parameters", brace=""))

    def parser(self) -> AnswerParser:
        return ScriptedParser(read_calls_or_text)


def _written(calls: list[dict[str, Any]]) -> str:
    return "; ".join(call_json(call, "parameters") for call in calls)


def _result(name: str, text: str) -> str:
    return f"Result of {name}: {text}" if name else f"Result: {text}"
