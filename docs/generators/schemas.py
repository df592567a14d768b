"""JSON Schemas in words: the type of a field, its bounds, its default. Knows no routes and no jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from docs.generators import markdown

Schema = Mapping[str, Any]
_BOUNDS = (("minimum", "from {}"), ("exclusiveMinimum", "above {}"), ("maximum", "to {}"), ("exclusiveMaximum", "below {}"))
_MOST_CHOICES = 16
_HUGE = 1 << 31
_EXPLAINED = re.compile(r"(?:^|(?<=[.;?] ))(\w+(?:, \w+)*): ")  # `name: what it means.` in a docstring


def name_of(schema: Schema) -> str | None:
    """The name of the schema that this one refers to."""
    reference = schema.get("$ref")
    return str(reference).rpartition("/")[2] if reference else None


def type_of(schema: Schema, known: Mapping[str, Schema]) -> str:
    """In a few words, as Markdown: `integer from 1 to 20`. known: the schemas that may be referred to, by name."""
    if (name := name_of(schema)) is not None:
        target = known.get(name, {})
        return type_of(target, known) if "enum" in target or "const" in target else _linked(name)
    if (choices := schema.get("enum")) is not None:
        return ", ".join(markdown.code(_text(choice)) for choice in choices[:_MOST_CHOICES] if choice is not None)
    if "const" in schema:
        return markdown.code(_text(schema["const"]))
    if (several := schema.get("anyOf") or schema.get("oneOf")) is not None:
        parts = [type_of(each, known) for each in several if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    return _plain(schema, known)


def objects_in(schema: Schema) -> list[str]:
    """Names of the objects that this schema is, one of several at most."""
    return [name for each in schema.get("anyOf", [schema]) if (name := name_of(each)) is not None]


def default_of(schema: Schema) -> str:
    """The default as JSON; empty when there is none, or null."""
    default = schema.get("default")
    return "" if default is None else markdown.code(json.dumps(default, ensure_ascii=False))


def introduction(schema: Schema) -> str:
    """The object's docstring, without what it says of single fields."""
    return _explanations(schema)[0]


def fields(schema: Schema, known: Mapping[str, Schema]) -> str:
    """A table of an object's fields. What they mean is in their descriptions and in the object's docstring."""
    required, meanings = set(schema.get("required", ())), _explanations(schema)[1]
    rows = [
        (
            markdown.code(name),
            type_of(field, known),
            "required" if name in required else default_of(field),
            " ".join(markdown.sentence(text) for text in (field.get("description", ""), meanings.get(name, "")) if text),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return markdown.table(("field", "type", "default", "meaning"), rows)


def reachable(schemas: Sequence[Schema], known: Mapping[str, Schema]) -> list[str]:
    """Names of all objects that these schemas refer to, directly or not, in the order in which they are met."""
    found: dict[str, None] = {}
    waiting = list(schemas)
    while waiting:
        for name in _names(waiting.pop(0)):
            if name not in found and name in known:
                found[name] = None
                waiting.append(known[name])
    return [name for name in found if "properties" in known[name]]


def _explanations(schema: Schema) -> tuple[str, dict[str, str]]:
    """What the docstring says of the object, and of each of its fields."""
    text, names = " ".join(str(schema.get("description", "")).split()), set(schema.get("properties", ()))
    found = [match for match in _EXPLAINED.finditer(text) if names.issuperset(match[1].split(", "))]
    ends = [match.start() for match in found[1:]] + [len(text)] * bool(found)
    meanings = {
        name: _capitalized(text[match.end() : end].strip().rstrip(";"))
        for match, end in zip(found, ends, strict=True)
        for name in match[1].split(", ")
    }
    return text[: found[0].start()].strip() if found else text, meanings


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plain(schema: Schema, known: Mapping[str, Schema]) -> str:
    kind = str(schema.get("type", "any"))
    if kind == "array":
        items = type_of(schema.get("items", {}), known)
        return f"array of {items}" if items != "any" else "array"
    hidden = {"minimum"} if "exclusiveMinimum" in schema else set()
    shown = [(schema[name], words) for name, words in _BOUNDS if name not in hidden and _is_worth_saying(schema.get(name))]
    bounds = [words.format(int(bound) if bound == int(bound) else bound) for bound, words in shown]
    return " ".join([kind, *bounds])


def _is_worth_saying(bound: object) -> bool:
    return isinstance(bound, int | float) and abs(bound) < _HUGE - 1


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if (name := name_of(value)) is not None:
            yield name
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)


def _linked(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
