"""Pieces of Lark grammars as llguidance reads them, formats of dates, and a trial compilation by a vocabulary of bytes.

The time of a trial depends on the grammar alone. Formats of dates and times are ours: the library accepts some that do not exist.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from runtime.protocol.errors import Field
from runtime.text.constraints.json_schema import MAX_SCHEMAS, refuse_unsupported, subschemas

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = f"({_YEAR}-(02-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-[0-9]{{2}})|{_LEAP_YEAR}-02-29)"
_TIME = "[0-9]{2}:[0-9]{2}:[0-5][0-9]"
_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}", "date-time": f"^{_DATE}[tT]{_TIME}"}


def with_real_dates(schema: Any) -> Any:
    """A copy whose dates and times have a `pattern` beside their `format`.

    The library's formats let 2023-02-29, the year 0000 and second 60 pass, which programs that read an answer's dates refuse.
    """
    copied = copy.deepcopy(schema)
    left = [copied]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left.extend(subschemas(part))
            _add_pattern(part)
    return copied


def _add_pattern(schema: dict[str, Any]) -> None:
    kind = schema.get("format")
    if not isinstance(kind, str) or kind not in _PATTERNS:
        return
    if "pattern" not in schema:
        schema["pattern"] = _PATTERNS[kind]
    elif isinstance(others := schema.setdefault("allOf", []), list):
        others.append({"pattern": _PATTERNS[kind]})


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

    schema: parsed; draft 2020-12 unless its `$schema` names another. lenient: ignore what grammars cannot express.
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


MAX_BRANCHES = 5 * MAX_SCHEMAS  # an optional property makes four


def new_matcher(tokens: LLTokenizer, lark: str) -> LLMatcher:
    """lark: without marks of `lark.token`. Its `is_error` and `get_error` have the error."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_items_in_row=MAX_BRANCHES, verbose_errors=False)
    return LLMatcher(tokens, LLMatcher.grammar_from_lark(lark), log_level=0, limits=limits)


def complaint(lark: str) -> str | None:
    """llguidance's error; None: it compiles."""
    matcher = new_matcher(_bytes(), with_tokens(lark, lambda _: None))
    return matcher.get_error() if matcher.is_error() else None


@cache
def _bytes() -> LLTokenizer:
    from llguidance import LLTokenizer

    return LLTokenizer("byte")
