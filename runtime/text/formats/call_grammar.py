"""Lark grammars of answers with tool calls, put together from what families have in common. Knows no family.

The grammars are llguidance's: a lexeme that is `lazy` ends where its mark first does, so what follows a mark must be a call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from runtime.protocol.request import ToolChoice, ToolMode
from runtime.text.constraints.lark import json_rule, literal, token
from runtime.text.formats.conversation import function_of
from runtime.text.formats.protocol import Tool

_ANY_TEXT = r"/(.|\n)*/"
_FENCE = r"```(json|tool_code)?"
# Text without a brace in front, also in a fence. A negation would be shorter, but lets special tokens through.
_FENCED_TEXT = r"```([^\s{jt](.|\n)*|[^\s{]*(\s+([^\s{](.|\n)*)?)?)"
_BRACELESS_TEXT = rf"/\s*([^\s{{`](.|\n)*|`{{1,2}}([^`](.|\n)*)?|{_FENCED_TEXT})?/"

_ANY_OBJECT: dict[str, Any] = {"type": "object"}
_NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
_COMBINATORS = frozenset({"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "patternProperties", "dependentSchemas"})


def json_call(arguments_key: str = "arguments", *, brace: str = "{") -> str:
    """A call as JSON, for the functions below. brace: the first, unless something else has written it."""
    opening = literal(f'{brace}"name": "NAME", "{arguments_key}": ')
    return f'{opening} ARGUMENTS "}}"'


def marked_calls(tools: Sequence[Tool], choice: ToolChoice, *, mark: str, block: str, call: str, between: str | None) -> str:
    """Text, and blocks of calls that a mark begins: a special token, or text where the model has no such token.

    block: Lark, what follows the mark; it may name the rules `call` and `calls`, one or more as in a JSON list.
    call: Lark, with NAME in a literal, and ARGUMENTS as the name of a rule.
    between: what stands between two blocks where only calls may be. None: an answer ends with its first block.
    """
    several = between is not None and choice.parallel
    if choice.mode is ToolMode.REQUIRED:
        again = f" ({literal(between)} {token(mark)} block)*" if between else f" ({token(mark)} block)*"
        rules = [f"start: {token(mark)} block{again if several else ''}"]
    else:
        rules = [
            f"start: {'(begin block)* TEXT' if several else 'TEXT | begin block'}",
            f"begin: written | TEXT {token(mark)}",
            f"written[lazy]: TEXT {literal(mark)}",
            f"TEXT: {_ANY_TEXT}",
        ]
    return "\n".join([*rules, f"block: {block}", *_call_rules(tools, choice, call)])


def calls_or_text(tools: Sequence[Tool], choice: ToolChoice, *, block: str, call: str, before: str = "") -> str:
    """Either calls, which begin with a brace, maybe in a fence, or text, which does not.

    block: Lark, what follows the brace. call: as for `marked_calls`. before: Lark, what may stand before the brace.
    """
    if choice.mode is ToolMode.REQUIRED:
        rules = [f'start: {before} "{{" block']
    else:
        rules = [
            f'start: TEXT | {before} BRACE block | FENCED block "\\n```"',
            r"BRACE: /\s*\{/",
            rf"FENCED: /\s*{_FENCE}\s*\{{/",
            f"TEXT: {_BRACELESS_TEXT}",
        ]
    return "\n".join([*rules, f"block: {block}", *_call_rules(tools, choice, call)])


def _call_rules(tools: Sequence[Tool], choice: ToolChoice, call: str) -> Iterator[str]:
    allowed = [function_of(tool) for tool in tools if choice.names is None or function_of(tool)["name"] in choice.names]
    yield 'calls: call (", " call)*' if choice.parallel else "calls: call"
    yield "call: " + " | ".join(f"call_{i}" for i in range(len(allowed)))
    for i, function in enumerate(allowed):
        name = literal(function["name"])[1:-1]
        yield f"call_{i}: {call.replace('ARGUMENTS', f'arguments_{i}').replace('NAME', name)}"
        yield f"arguments_{i}: {json_rule(arguments_schema(function), lenient=not function.get('strict'))}"


def arguments_schema(function: dict[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments: an object with the properties that are named, unless the schema allows others."""
    schema: dict[str, Any] | None = function.get("parameters")
    if schema is None:
        return _NO_ARGUMENTS
    if "properties" in schema and not _COMBINATORS & schema.keys():
        schema = {"additionalProperties": False, **schema}
    return {**schema, "type": "object"}


def loosened(tools: Sequence[Tool]) -> list[Tool]:
    """The tools, those that are not strict with any object for arguments: for when their schemas make no grammar."""
    return [
        tool if function_of(tool).get("strict") else {**tool, "function": {**function_of(tool), "parameters": _ANY_OBJECT}}
        for tool in tools
    ]
