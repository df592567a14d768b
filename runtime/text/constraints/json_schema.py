"""What of a JSON Schema no grammar guarantees although it compiles, found beforehand. Pure; knows no grammar and no model.

The compiler of grammars refuses keywords and formats that it does not know; what it passes over is refused here. It stays looser
than a schema in one way: a bound on a number is met to the precision of a double.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from runtime.protocol.errors import Field, InvalidRequest

MAX_DEPTH = 100
MAX_SCHEMAS = 4000
MAX_DIVISOR = 10_000
_EXACT = 2**53  # the largest integer below which a double holds all
_VALUES = ("const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_SCHEMAS = ("items", "prefixItems", "additionalItems", "additionalProperties", "allOf", "anyOf", "oneOf")
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")


def refuse_unsupported(schema: Any, *, field: Field) -> None:
    """schema: parsed. Raises InvalidRequest (`unsupported_schema`) that names the keyword."""
    if not isinstance(schema, (dict, bool)):
        raise _refusal("it is neither an object nor a boolean. Send a JSON Schema.", field)
    if isinstance(schema, dict) and "x-guidance" in schema:
        raise _refusal('"x-guidance" may not be set by a request. Leave it out.', field)
    level: list[Any] = [schema]
    num_schemas = 0
    for _ in range(MAX_DEPTH):
        num_schemas += len(level)
        if num_schemas > MAX_SCHEMAS:
            raise _refusal(f"it has more than {MAX_SCHEMAS} schemas in it. Send a smaller one.", field)
        for part in level:
            if isinstance(part, dict) and (reason := _unsupported(part)):
                raise _refusal(reason, field)
        level = [inner for part in level if isinstance(part, dict) for inner in subschemas(part)]
        if not level:
            return
    raise _refusal(f"it is nested deeper than {MAX_DEPTH} schemas. Flatten it, or use $defs.", field)


def _refusal(reason: str, field: Field) -> InvalidRequest:
    return InvalidRequest(f"The JSON Schema cannot be followed: {reason}", field=field, code="unsupported_schema")


def _unsupported(schema: dict[str, Any]) -> str | None:
    for keyword in _VALUES:
        if keyword in schema and any(abs(number) > _EXACT for number in _numbers(schema[keyword])):
            return f'"{keyword}" has a number beyond 2**53, where doubles are not exact. Use a string, or a smaller number.'
    if schema.get("format") == "unknown":
        return '"format" is "unknown". Leave it out.'
    if _divisor(schema.get("multipleOf")) > MAX_DIVISOR:
        return f'"multipleOf" has a divisor above {MAX_DIVISOR}. Use a rounder or smaller one.'
    num_free = _count(schema.get("minProperties")) - len(_required(schema))
    if num_free > 1:
        return f'"minProperties" needs {num_free} keys more than "required" names, and a key could be written twice. Name them.'
    return None


def _divisor(value: Any) -> int:
    """The digits of a number without its exponent: 25 for 0.025 and 2500. The grammar has a state for each remainder."""
    if not isinstance(value, (int, float)):
        return 0
    return int("".join(map(str, Decimal(str(value)).normalize().as_tuple().digits)))


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _required(schema: dict[str, Any]) -> set[str]:
    names = schema.get("required")
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in a value, however deep."""
    left = [value]
    while left:
        match left.pop():
            case bool():
                pass
            case int() | float() as number:
                yield number
            case list(items):
                left.extend(items)
            case dict(items):
                left.extend(items.values())


def subschemas(schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas directly inside this one, and other values in the places of schemas."""
    for keyword in _SCHEMAS:
        match schema.get(keyword):
            case list(several):
                yield from several
            case None:
                pass
            case one:
                yield one
    for keyword in _SCHEMAS_BY_NAME:
        if isinstance(named := schema.get(keyword), dict):
            yield from named.values()
