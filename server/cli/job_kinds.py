"""`slmops jobs kinds`: what kinds of jobs there are, and what their params may be. Needs no daemon: both are code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.job_request import kind_named
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_table

if TYPE_CHECKING:
    from jobs.task import JobKind

_TYPES = {"integer": "whole number", "number": "number", "boolean": "true | false", "string": "text", "object": "object"}
_FORMATS = {"file": "file", "source": "model", "folder": "folder | version", "output": "folder", "endpoint": "endpoint"}
_BOUNDS = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below"))
_UNITS = {"_s": "seconds", "_bytes": "bytes", "_length": "tokens", "_tokens": "tokens"}  # by the end of a param's name


def kinds(
    kind: Annotated[str | None, typer.Argument(help="Show the params of this kind.")] = None, as_json: AsJson = False
) -> None:
    """List the kinds of jobs, or the params of one: choices, ranges, defaults, and an example."""
    from jobs.task import JobKind

    chosen = list(JobKind) if kind is None else [kind_named(kind)]
    schemas = {each: _schema(each) for each in chosen}
    if as_json:
        print_json([{"kind": str(each), "params": schema} for each, schema in schemas.items()])
    elif kind is None:
        print_table(("KIND", "WHAT"), [(str(each), _first_line(schema)) for each, schema in schemas.items()])
    else:
        _print_kind(chosen[0], schemas[chosen[0]])


def example(kind: JobKind, params: Mapping[str, Any]) -> str:
    """The command line that creates a job with these params."""
    pairs = (f"{name}={_written(value)}" for name, value in params.items())
    return shlex.join(["slmops", "jobs", "create", str(kind), *(word for pair in pairs for word in ("-p", pair))])


def described_type(schema: Mapping[str, Any], definitions: Mapping[str, Any], name: str = "") -> str:
    """`lora | full`, `whole number, 1 to 1,024`, `list of text`. schema: JSON Schema of one param, whose name shows its unit."""
    if (reference := schema.get("$ref")) is not None:
        return described_type(definitions[reference.rpartition("/")[2]], definitions, name)
    if (choices := schema.get("enum", [schema["const"]] if "const" in schema else None)) is not None:
        return " | ".join(_written(each) for each in choices)
    if (members := schema.get("anyOf")) is not None:
        found = (described_type(each, definitions, name) for each in members if each.get("type") != "null")
        return " | ".join(dict.fromkeys(found))
    match schema.get("type"):
        case "array":
            return f"list of {described_type(schema.get('items', {}), definitions)}"
        case "object" if "properties" in schema:
            return f"object with {', '.join(schema['properties'])}"
        case "integer" | "number" as kind:
            unit = next((f" of {word}" for end, word in _UNITS.items() if name.endswith(end)), "")
            return f"{_TYPES[kind]}{unit}{_range(schema)}"
        case kind:
            return _FORMATS.get(schema.get("format", ""), schema.get("format") or _TYPES.get(str(kind), "any"))


# ---- inside ----


def _schema(kind: JobKind) -> dict[str, Any]:
    from jobs.tasks.kinds import task_for

    schema: dict[str, Any] = task_for(kind).params.model_json_schema()
    return schema


def _print_kind(kind: JobKind, schema: dict[str, Any]) -> None:
    print_line(f"{kind}: {_first_line(schema)}\n")
    print_table(("PARAM", "TYPE", "DEFAULT", "WHAT"), list(_rows(schema)))
    for params in schema.get("examples", ()):
        in_order = {name: params[name] for name in _names(schema) if name in params}
        print_line(f"\nexample: {example(kind, in_order)}")


def _rows(schema: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    required, definitions = set(schema.get("required", ())), schema.get("$defs", {})
    for name in _names(schema):
        each = schema["properties"][name]
        default = "required" if name in required else _written(each.get("default"))
        yield name, described_type(each, definitions, name), default, str(each.get("description", ""))


def _names(schema: Mapping[str, Any]) -> list[str]:
    """Of all params, those first that must be given."""
    return sorted(schema.get("properties", {}), key=lambda name: name not in schema.get("required", ()))


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    found = [f"{word} {schema[bound]:,}" for bound, word in _BOUNDS if bound in schema]
    return f", {' and '.join(found)}" if found else ""


def _written(value: Any) -> str:
    """As it may stand behind NAME= on the command line."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(each, str | int) and "," not in str(each) for each in value):
        return ",".join(_written(each) for each in value)
    return json.dumps(value, ensure_ascii=False)


def _first_line(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).partition("\n")[0]
