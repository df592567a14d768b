"""The edges of a parameter: JSON texts at, and just beyond, what its schema allows, and those that no schema foresees.

They are texts, not values, because NaN, 1e999, a lone surrogate and a key that stands twice have no value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.contract.document import Schema, alternatives

MANY = 10_000
_LINE = 300  # characters
_DEEPEST = 3  # objects within objects whose fields get edges of their own


@dataclass(frozen=True, slots=True)
class Edge:
    """text: as it stands in the request's body. is_json: strictly; else only the body as a whole can be blamed."""

    label: str
    text: str
    is_json: bool = True


def _of(label: str, value: Any) -> Edge:
    return Edge(label, json.dumps(value))


NOT_JSON = (
    Edge("NaN", "NaN", is_json=False),
    Edge("Infinity", "Infinity", is_json=False),
    Edge("-Infinity", "-Infinity", is_json=False),
    Edge("1e999", "1e999", is_json=False),
    Edge("-1e999", "-1e999", is_json=False),
    Edge("a lone surrogate", '"\\ud800"', is_json=False),
    Edge("surrogates in the wrong order", '"\\udc00\\ud800"', is_json=False),
    Edge("a number with a leading zero", "007", is_json=False),
    Edge("nothing", "", is_json=False),
    Edge("single quotes", "'a'", is_json=False),
    Edge("5,000 digits", "9" * 5_000, is_json=False),
    Edge("nested 100,000 deep", "[" * 100_000 + "]" * 100_000, is_json=False),
)
SMALL = (
    _of("null", None),
    _of("true", True),
    _of("false", False),
    _of("0", 0),
    _of("1", 1),
    _of("-1", -1),
    _of("a half", 0.5),
    _of("an empty text", ""),
    _of("a number as text", "1"),
    _of("NUL", "\0"),
    _of("right to left", "\u202eשלום\u202c"),
    _of("emoji", "👩‍👩‍👧‍👦🏳️‍🌈"),
    _of("an empty list", []),
    _of("a list of null", [None]),
    _of("an empty object", {}),
    _of("an object with an empty key", {"": None}),
)
LARGE = (
    Edge("1.0", "1.0"),
    Edge("-0.0", "-0.0"),
    Edge("1e-999", "1e-999"),
    Edge("2**31", str(2**31)),
    Edge("2**63", str(2**63)),
    Edge("2**64", str(2**64)),
    Edge("-2**63 - 1", str(-(2**63) - 1)),
    Edge("1e308", "1e308"),
    Edge("400 digits", "9" * 400),
    Edge("minus 400 digits", "-" + "9" * 400),
    Edge("400 decimals", "0." + "3" * 400),
    _of("a line break", "a\r\nb"),
    _of("combining marks", "e" + "\u0301" * 1_000),
    _of("a byte order mark", "\ufeff"),
    _of("1 MB of text", "x" * 1_000_000),
    _of("1 MB of emoji", "😀" * 80_000),
    _of("10,000 zeros", [0] * MANY),
    _of("10,000 texts", ["a"] * MANY),
    _of("10,000 empty lists", [[]] * MANY),
    _of("10,000 keys", {str(number): 0 for number in range(MANY)}),
    Edge("a key twice", '{"a": 1, "a": 2}'),
    Edge("nested 200 deep", "[" * 200 + "]" * 200),
    Edge("objects nested 200 deep", '{"a":' * 200 + "1" + "}" * 200),
)


def edges_of(schema: Any, document: Schema, *, within: int = 0) -> Iterator[Edge]:
    """within: how many objects the schema stands in; the deeper, the fewer."""
    yield from SMALL if within else (*SMALL, *LARGE, *NOT_JSON)
    for each in alternatives(schema, document):
        for values in (each.get("enum", ()), [each["const"]] if "const" in each else ()):
            for value in values:
                yield _of(f"{value!r}", value)
                yield _of(f"{value!r} and more", f"{value} ")
        yield from _numbers(each)
        yield from _texts(each)
        if within < _DEEPEST:
            yield from _items(each, document, within)
            yield from _fields(each, document, within)


def small_edges_of(schema: Any, document: Schema) -> list[str]:
    """JSON texts: what a client would send, and the edges that fit in a line."""
    plain = json.dumps(example_of(schema, document))
    return [plain, *(edge.text for edge in edges_of(schema, document) if edge.is_json and len(edge.text) < _LINE)]


def example_of(schema: Any, document: Schema) -> Any:
    """The plainest value that a schema allows."""
    each = next(iter(alternatives(schema, document)), {})
    if "const" in each:
        return each["const"]
    if "enum" in each:
        return each["enum"][0]
    match each.get("type"):
        case "string":
            return "a" * max(1, each.get("minLength", 1))
        case "integer" | "number":
            return int(max(1, each.get("minimum", 1)))
        case "boolean":
            return True
        case "array":
            return [example_of(each.get("items", {}), document)] * max(1, each.get("minItems", 1))
        case "object":
            fields = each.get("properties", {})
            return {name: example_of(fields.get(name, {}), document) for name in each.get("required", ())}
    return None


def _numbers(schema: Schema) -> Iterator[Edge]:
    if schema.get("type") not in ("integer", "number"):
        return
    step = 1 if schema["type"] == "integer" else 0.001
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if name in schema:
            bound = int(schema[name]) if step == 1 else schema[name]
            for value in (bound, bound - step, bound + step):
                yield _of(f"{value} at the {name}", value)


def _texts(schema: Schema) -> Iterator[Edge]:
    for name in ("minLength", "maxLength"):
        if name in schema:
            for length in {max(0, schema[name] - 1), schema[name], schema[name] + 1}:
                yield _of(f"{length} characters, {name}", "a" * length)


def _items(schema: Schema, document: Schema, within: int) -> Iterator[Edge]:
    if schema.get("type") != "array":
        return
    item = json.dumps(example_of(schema.get("items", {}), document))
    for length in {1, schema.get("minItems", 1), schema.get("maxItems", 2), schema.get("maxItems", 2) + 1, MANY}:
        yield Edge(f"{length} items", f"[{', '.join([item] * length)}]")
    for edge in edges_of(schema.get("items", {}), document, within=within + 1):
        yield Edge(f"[{edge.label}]", f"[{edge.text}]", edge.is_json)


def _fields(schema: Schema, document: Schema, within: int) -> Iterator[Edge]:
    fields: Mapping[str, Any] = schema.get("properties", {})
    plain = {name: json.dumps(example_of(fields.get(name, {}), document)) for name in schema.get("required", ())}
    if fields:
        yield Edge("the required fields", _object(plain))
        yield Edge("an unknown field", _object({**plain, "unheard_of": "1"}))
    for missing in plain:
        yield Edge(f"no {missing}", _object({name: text for name, text in plain.items() if name != missing}))
    if schema.get("additionalProperties"):
        for edge in (*SMALL, *LARGE):
            yield Edge(f"a field: {edge.label}", _object({**plain, "a": edge.text}))
    for name, field in fields.items():
        for edge in edges_of(field, document, within=within + 1):
            yield Edge(f"{name}: {edge.label}", _object({**plain, name: edge.text}), edge.is_json)


def _object(fields: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in fields.items()) + "}"
