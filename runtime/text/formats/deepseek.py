"""DeepSeek's calls, between special tokens: V3 and R1 in fences, V3.1 without.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
```json
{"city": "Paris"}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.protocol.request import ToolChoice
from runtime.text.constraints.lark import token
from runtime.text.formats.call_grammar import marked_calls
from runtime.text.formats.conversation import as_json, as_plain_turns, calls_of, with_instructions, with_result_names
from runtime.text.formats.protocol import Message, Tool
from runtime.text.formats.reader import AnswerParser, Reader, Script, ScriptedParser

BEGIN, END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, SEPARATOR, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
MAX_NAME_CHARS = 256

_INSTRUCTIONS = """## Tools
You have access to the following tools:
{tools}

To call tools, answer in this form, with one block between {call_begin} and {call_end} for each call:
{example}"""


@dataclass(frozen=True, slots=True)
class DeepSeek:
    """fenced: the way calls are written. Both are read. arguments_as_text: the template takes arguments as their JSON text."""

    name: str = "deepseek"
    special_tokens: tuple[str, ...] = (BEGIN, END, CALL_BEGIN, SEPARATOR, CALL_END)
    fenced: bool = True
    arguments_as_text: bool = True

    def messages(self, messages: Sequence[Message], tools: Sequence[Tool], *, native: bool) -> list[Message]:
        if native:
            named = with_result_names(messages)
            return [_with_text_arguments(message) for message in named] if self.arguments_as_text else named
        example = self._written([{"function": {"name": "NAME", "arguments": {"parameter": "value"}}}])
        shown = "\n".join(as_json(tool) for tool in tools)
        instructions = _INSTRUCTIONS.format(tools=shown, call_begin=CALL_BEGIN, call_end=CALL_END, example=example)
        turns = as_plain_turns(messages, write_calls=self._written, write_result=_result)
        return with_instructions(turns, instructions if tools else None)

    def grammar(self, tools: Sequence[Tool], choice: ToolChoice) -> str:
        if self.fenced:
            parts = (token(CALL_BEGIN), '"function"', token(SEPARATOR), r'"NAME\n```json\n" ARGUMENTS "\n```"', token(CALL_END))
            again = r' ("\n" call)*'
        else:
            parts = (token(CALL_BEGIN), '"NAME"', token(SEPARATOR), "ARGUMENTS", token(CALL_END))
            again = " call*"
        block = f"call{again if choice.parallel else ''} {token(END)}"
        return marked_calls(tools, choice, mark=BEGIN, block=block, call=" ".join(parts), between=None)

    def parser(self) -> AnswerParser:
        return ScriptedParser(_read_answer)

    def _written(self, calls: list[dict[str, Any]]) -> str:
        return BEGIN + ("\n" if self.fenced else "").join(map(self._written_call, calls)) + END

    def _written_call(self, call: dict[str, Any]) -> str:
        name, arguments = call["function"]["name"], as_json(call["function"]["arguments"])
        if self.fenced:
            return f"{CALL_BEGIN}function{SEPARATOR}{name}\n```json\n{arguments}\n```{CALL_END}"
        return f"{CALL_BEGIN}{name}{SEPARATOR}{arguments}{CALL_END}"


def _read_answer(reader: Reader) -> Script[None]:
    while (yield from reader.emit_until((BEGIN,))) is not None:
        yield from reader.attempt(_read_block)


def _read_block(reader: Reader) -> Script[bool]:
    yield from reader.spaces()
    if not (yield from _read_call(reader)):
        return False
    while True:
        place = reader.at
        yield from reader.spaces()
        if (yield from reader.accept(END)):
            return True
        if not (yield from _read_call(reader)):
            reader.back_to(place)
            return True


def _read_call(reader: Reader) -> Script[bool]:
    """False: there is none; nothing was emitted, and the reading position is undefined."""
    if not (yield from reader.accept(CALL_BEGIN)):
        return False
    head = yield from reader.until(SEPARATOR, MAX_NAME_CHARS)
    if head is None:
        return False
    name: str | None = head.strip()
    yield from reader.spaces()
    if (yield from reader.peek()) != "{":
        name = yield from reader.until("\n", MAX_NAME_CHARS)
        yield from reader.spaces()
        yield from reader.accept("```json")
        yield from reader.spaces()
    if not name or not name.strip() or (yield from reader.peek()) != "{":
        return False
    reader.begin_call(name.strip())
    if (yield from reader.json(reader.emit_arguments)) is not None:
        yield from reader.spaces()
        yield from reader.accept("```")
        yield from reader.spaces()
        yield from reader.accept(CALL_END)
    return True


def _with_text_arguments(message: Message) -> Message:
    if not (calls := calls_of(message)):
        return message
    functions = [{**call["function"], "arguments": as_json(call["function"]["arguments"])} for call in calls]
    return {**message, "tool_calls": [{**call, "function": function} for call, function in zip(calls, functions, strict=True)]}


def _result(name: str, text: str) -> str:
    return f"<｜tool▁output▁begin｜>{text}<｜tool▁output▁end｜>"
