"""JSON Schemas of every shape that can be guaranteed, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]
NAMES = st.sampled_from(["a", "b", "name", "é", 'say "hi"', "x y", "line\nbreak", "0"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1000, 1000),
    st.floats(-10, 10, allow_nan=False).map(lambda number: round(number, 2)),
    st.text('abé"\\/\n ', max_size=5),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(NAMES, st.integers(0, 9), max_size=2),
)
PATTERNS = st.sampled_from(["^[a-z]{1,5}$", "^(red|green)$", "[0-9]", "^\\d{3}-\\d{4}$", "a+b?$", "^\\w+@\\w+$", '^"$', "^$"])
FORMATS = st.sampled_from(["date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"])


@st.composite
def bounded(draw: st.DrawFn, low: str, high: str, most: int) -> Schema:
    """Either bound, both or none; never crossed."""
    first, second = sorted((draw(st.integers(0, most)), draw(st.integers(0, most))))
    return draw(st.sampled_from([{}, {low: first}, {high: second}, {low: first, high: second}]))


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    kind = draw(st.sampled_from(["integer", "number"]))
    low = draw(st.integers(-200, 200)) / draw(st.sampled_from([1, 1, 4, 10]))
    bounds = {draw(st.sampled_from(["minimum", "exclusiveMinimum"])): low}
    bounds[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + draw(st.integers(2, 300))
    chosen = draw(st.sets(st.sampled_from(sorted(bounds))))
    return {"type": kind, **{name: bounds[name] for name in sorted(chosen)}}


def strings() -> st.SearchStrategy[Schema]:
    return st.one_of(
        bounded("minLength", "maxLength", 8).map(lambda bounds: {"type": "string", **bounds}),
        PATTERNS.map(lambda pattern: {"type": "string", "pattern": pattern}),
        FORMATS.map(lambda name: {"type": "string", "format": name}),
    )


def leaves() -> st.SearchStrategy[Any]:
    return st.one_of(
        strings(),
        numbers(),
        st.lists(VALUES, min_size=1, max_size=4).map(lambda values: {"enum": values}),
        VALUES.map(lambda value: {"const": value}),
        st.sampled_from(
            [{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}, {}, True, {"$ref": "#/$defs/shared"}]
        ),
    )


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Schema:
    schema: Schema = {"type": "array", "items": draw(inner), **draw(bounded("minItems", "maxItems", 4))}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
    return schema


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Schema:
    properties = draw(st.dictionaries(NAMES, inner, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    additional = draw(st.one_of(st.booleans(), inner))
    schema: Schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": additional}
    if draw(st.integers(0, 4)) == 0:
        schema["patternProperties"] = {"^p_": draw(inner)}
    return schema


def parts() -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            objects(inner),
            objects(inner),
            arrays(inner),
            st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
        ),
        max_leaves=8,
    )


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """Whole schemas, with a definition that may refer to itself."""
    tree = {"type": "object", "properties": {"of": {"type": "array", "items": {"$ref": "#/$defs/shared"}}}, "required": ["of"]}
    shared = draw(st.one_of(leaves().filter(lambda leaf: leaf != {"$ref": "#/$defs/shared"}), st.just(tree)))
    part = draw(objects(parts()) | parts())
    return {**(part if isinstance(part, dict) else {}), "$defs": {"shared": shared}}
