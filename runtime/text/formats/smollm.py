"""SmolLM2's calls: one list in tags. Its chat template knows no tools; the instructions are those that it was trained on.

<tool_call>[{"name": "get_weather", "arguments": {"city": "Paris"}}]</tool_call>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.protocol.request import ToolChoice, ToolMode
from runtime.text.formats.call_grammar import json_call, marked_calls
from runtime.text.formats.conversation import as_json, as_plain_turns, call_json, with_instructions
from runtime.text.formats.hermes import CLOSE, OPEN, read_answer
from runtime.text.formats.protocol import Message, Tool
from runtime.text.formats.reader import AnswerParser, ScriptedParser

_INSTRUCTIONS = """You are an expert in composing functions. You are given a question and a set of possible functions.
Based on the question, you will need to make one or more function/tool calls to achieve the purpose.
If none of the functions can be used, point it out and refuse to answer.
If the given question lacks the parameters required by the function, also point it out.

You have access to the following tools:
<tools>{tools}</tools>

The output MUST strictly adhere to the following format, and NO other text MUST be included.
The example format is as follows. Please make sure the parameter type is correct. \
If no function call is needed, please make the tool calls an empty list '[]'.
<tool_call>[
{{"name": "func_name1", "arguments": {{"argument1": "value1", "argument2": "value2"}}}},
... (more tool calls as required)
]</tool_call>"""


@dataclass(frozen=True, slots=True)
class SmolLM:
    name: str = "smollm"
    special_tokens: tuple[str, ...] = ()

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        turns = as_plain_turns(messages, write_calls=_written, write_result=_result)
        return with_instructions(turns, _INSTRUCTIONS.format(tools=as_json(list(tools))) if tools else None)

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        """With AUTO the list may be empty, as the model was trained to write when it calls nothing."""
        calls = "calls" if choice.mode is ToolMode.REQUIRED else "calls?"
        block = f'"[" {calls} "]{CLOSE}"'
        return marked_calls(tools, choice, mark=OPEN, block=block, call=json_call(), between=None)

    def parser(self) -> AnswerParser:
        return ScriptedParser(read_answer)


def _written(calls: list[dict[str, Any]]) -> str:
    return f"{OPEN}[{', '.join(call_json(call) for call in calls)}]{CLOSE}"


def _result(name: str, text: str) -> str:
    return f"<tool_response>{text}</tool_response>"
