"""The server's own OpenAPI document, read as a table of parameters. Knows no requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.app import create_app
from server.settings.daemon import Settings

MODEL = "smollm2-135m"
OTHER = "other"  # the model that is loaded, reloaded and unloaded while the first one answers
Schema = Mapping[str, Any]


def contract_settings(home: Path) -> Settings:
    """A small server: a short context, so that an answer without end ends soon, and few rows."""
    return Settings(engine="fake", home=home, port=0, model=MODEL, models={OTHER: {}}, num_slots=4, context_length=512)


def read_document() -> dict[str, Any]:
    return create_app(contract_settings(Path("nowhere"))).openapi()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field of a route's JSON body. required: what the body must have beside it."""

    path: str
    name: str
    schema: Schema
    required: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.removeprefix('/v1/').lstrip('/')}-{'-'.join((*self.required, self.name))}"


def parameters_of(document: Schema, path: str) -> list[Parameter]:
    """Of each shape that the body may have."""
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return [
        Parameter(path, name, schema, tuple(shape["required"]))
        for shape in alternatives(body, document)
        for name, schema in shape["properties"].items()
    ]


def alternatives(schema: Any, document: Schema) -> Iterator[Schema]:
    """The constraints on a value: the schema without references and choices; empty for an empty schema."""
    if not isinstance(schema, Mapping):
        return
    if "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        yield from alternatives(target, document)
    elif choices := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        for choice in choices:
            yield from alternatives(choice, document)
    else:
        yield schema
