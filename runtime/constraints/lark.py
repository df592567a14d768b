"""Pieces of Lark grammars as llguidance reads them: texts, tokens, JSON Schemas. Pure; knows no model and loads no library."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from runtime.constraints.formats import with_real_dates
from runtime.constraints.json_schema import refuse_unsupported
from runtime.errors import Field

# Small models lose themselves in free whitespace, so answers look like `json.dumps`.
_JSON_LAYOUT = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
_STRING = r'"(?:\\.|[^"\\\n])*"'
_TOKEN = re.compile(rf"%token (?P<text>{_STRING})|{_STRING}|/(?:\\.|[^/\\\n])+/|(?:#|//)[^\n]*")
_LAZY = re.compile(r"^(\w+)\[lazy\]:", re.MULTILINE)


def literal(text: str) -> str:
    """Exactly this text. A special token that is spelled alike is not meant: see `token`."""
    return _quoted(text)


def token(text: str) -> str:
    """The special token that is spelled like this (`[TOOL_CALLS]`), or the text itself with a model that has no such token.

    For rules, also for one `[lazy]` rule of its own line that ends with it: text up to that mark. Resolved by `with_tokens`.
    """
    return f"%token {_quoted(text)}"


def json_rule(schema: Any, *, field: Field = Field.TOOLS, lenient: bool = False) -> str:
    """A JSON text that follows the schema, written as `json.dumps` does. May stand wherever a rule's name may.

    schema: parsed; draft 2020-12 unless its `$schema` says otherwise. lenient: what grammars cannot express is passed over.
    Raises InvalidRequest (`unsupported_schema`) that names `field` and the keyword; more is found when the grammar is compiled.
    """
    if not lenient:
        refuse_unsupported(schema, field=field)
    body = with_real_dates(schema) if isinstance(schema, dict) else {"allOf": [schema]}
    options = {**_JSON_LAYOUT, "lenient": lenient}
    return "%json " + _quoted({**body, "x-guidance": options})


def with_tokens(lark: str, special: Callable[[str], int | None]) -> str:
    """The grammar with every `token` resolved. special: the number of the special token that is spelled so; None: there is none."""
    return "\n".join(_line_with_tokens(line, special) for line in lark.split("\n")) if "%token " in lark else lark


def _line_with_tokens(line: str, special: Callable[[str], int | None]) -> str:
    def resolve(match: re.Match[str]) -> str:
        text = match["text"]
        if text is None:
            return match[0]
        number = special(json.loads(text))
        return text if number is None else f"<[{number}]>"

    resolved = _TOKEN.sub(resolve, line)
    # Text cannot hold a special token, so that what is before one ends there without being lazy; lazy rules cannot hold any.
    return resolved if resolved.count("<[") == line.count("<[") else _LAZY.sub(r"\1:", resolved)


def _quoted(value: Any) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")
