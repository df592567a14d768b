"""Llama 3.1 to 3.3: a call is the whole answer, without marks or after a special token. Several are separated by semicolons.

<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.protocol.request import ToolChoice
from runtime.text.constraints.lark import token
from runtime.text.formats.call_grammar import calls_or_text, json_call
from runtime.text.formats.conversation import as_json, as_plain_turns, call_json, calls_of, with_instructions, with_result_names
from runtime.text.formats.json_calls import read_bare_calls
from runtime.text.formats.protocol import Message, Tool
from runtime.text.formats.reader import AnswerParser, Reader, Script, ScriptedParser

PYTHON_TAG = "<|python_tag|>"

# The text of Llama's templates.
_INSTRUCTIONS = """You have access to the following functions. To call a function, please respond with JSON for a function call.
Respond in the format {{"name": function name, "parameters": dictionary of argument name and its value}}. Do not use variables.

{tools}"""


@dataclass(frozen=True, slots=True)
class Llama3:
    name: str = "llama3"
    special_tokens: tuple[str, ...] = (PYTHON_TAG,)

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        if native:
            return list(_one_call_per_turn(with_result_names(messages)))
        shown = "\n\n".join(as_json(tool) for tool in tools)
        turns = as_plain_turns(messages, write_calls=_written, write_result=_result)
        return with_instructions(turns, _INSTRUCTIONS.format(tools=shown) if tools else None)

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        block = 'call ("; {" call)*' if choice.parallel else "call"
        before = f"({token(PYTHON_TAG)})?"
        return calls_or_text(tools, choice, block=block, call=json_call("parameters", brace=""), before=before)

    def parser(self) -> AnswerParser:
        return ScriptedParser(_read_answer)


def _read_answer(reader: Reader) -> Script[None]:
    """Reads an answer. Without the special token, only text at the beginning of the answer is a call."""
    yield from reader.attempt(read_bare_calls)
    while (yield from reader.emit_until((PYTHON_TAG,))) is not None:
        yield from reader.attempt(read_bare_calls)


def _one_call_per_turn(messages: Sequence[Message]) -> Iterator[Message]:
    """The templates take one call per turn: each gets a turn of its own, with its result behind it."""
    results = {message.get("tool_call_id"): message for message in messages if message["role"] == "tool"}
    placed = set()
    for message in messages:
        calls = calls_of(message)
        if len(calls) < 2:
            if message["role"] != "tool" or message.get("tool_call_id") not in placed:
                yield message
            continue
        for call in calls:
            yield {**message, "tool_calls": [call]}
            if call.get("id") in results:
                placed.add(call.get("id"))
                yield results[call.get("id")]


def _written(calls: list[dict[str, Any]]) -> str:
    return "; ".join(call_json(call, "parameters") for call in calls)


def _result(name: str, text: str) -> str:
    return as_json({"output": text})
