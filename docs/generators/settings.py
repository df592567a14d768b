"""The page of the settings: those of the daemon, of single models, of jobs and of endpoints, read from their classes."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.generators import markdown, schemas
from server.cli import serve
from server.settings.daemon import Settings
from server.settings.models import ModelSettings
from server.settings.toml_file import DEFAULT_HOME, ENV_PREFIX

INTRODUCTION = f"""\
A value comes from the first of: the command's flag, the variable `{ENV_PREFIX}NAME`, `slmops.toml`, the default. `slmops.toml` is
looked for in the current folder, then in the home folder of slmops (`{DEFAULT_HOME}`); only the first found is read. An unknown
setting, or a value out of range, stops the command with a message that names it and its origin. `slmops config` prints every
setting with its value and where that came from.

Sizes are written `512MiB` or in bytes, durations in seconds (`keep_alive` and others that say so also as `10m`, `1h30m`), lists as
`a,b` in flags and variables and as arrays in the file, tables in variables as JSON. How to choose values:
[Sizing](../operate/sizing.md), [Memory](../models/memory.md) and [Context and concurrency](../use/context-and-concurrency.md)."""
FOR_ALL_MODELS = """\
These hold for every model. Each may be set for one model, in a table `[models.NAME]`, or for one version, in
`[models."NAME:NUMBER"]`; names with dots need quotes. What a version's table leaves out is taken from its model's, and what neither
has holds as for all. A table for an alias is refused, because what it means changes."""
TABLES = {
    "jobs": "Settings of jobs: the table `[jobs]`.",
    "endpoints": "Servers that jobs may send requests to: a table `[endpoints.NAME]` for each.",
}


def page() -> str:
    models = ModelSettings.model_fields
    daemon = [name for name in Settings.model_fields if name not in models and not _table_of(Settings.model_fields[name])]
    shared = [name for name in Settings.model_fields if name in models]
    return markdown.page(
        "Settings",
        INTRODUCTION,
        "## The daemon",
        _rows(Settings, daemon),
        "## All models",
        FOR_ALL_MODELS,
        _rows(Settings, shared),
        "## One model",
        "These exist only in the table of a model.",
        _rows(ModelSettings, [name for name in models if name not in Settings.model_fields]),
        *_tables(),
    )


def _tables() -> list[str]:
    """A part for each setting that is a table: `[jobs]`, `[endpoints.NAME]`, and others like them."""
    parts = []
    for name, field in Settings.model_fields.items():
        table = _table_of(field)
        if table is not None and table is not ModelSettings:
            introduction = TABLES.get(name, markdown.sentence(field.description or ""))
            parts += [f"## `[{name}]`", introduction, _rows(table, list(table.model_fields))]
    return parts


def _rows(model: type[BaseModel], names: list[str]) -> str:
    flags = _flags() if model is Settings else {}
    schema: dict[str, Any] = model.model_json_schema()
    known = schema.get("$defs", {})
    rows = []
    for name in names:
        field, described = model.model_fields[name], schema["properties"][name]
        default = "required" if field.is_required() else _default(name, described)
        flag = markdown.code(flags.get(name, ""))
        rows.append((markdown.code(name), default, _type(described, known), flag, markdown.sentence(field.description or "")))
    return markdown.table(("setting", "default", "type", "flag of `serve`", "meaning"), rows)


def _default(name: str, described: schemas.Schema) -> str:
    return markdown.code(DEFAULT_HOME) if name == "home" else schemas.default_of(described)


def _type(described: schemas.Schema, known: dict[str, Any]) -> str:
    return schemas.type_of({key: value for key, value in described.items() if key != "default"}, known).replace("any", "")


def _table_of(field: FieldInfo) -> type[BaseModel] | None:
    """The class of a setting that is a table, or a table of tables."""
    annotation: Any = field.annotation
    for each in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _flags() -> dict[str, str]:
    return {name: f"--{name.replace('_', '-')}" for name in inspect.signature(serve.serve).parameters}
