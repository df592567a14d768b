"""What a job is requested by: a file in YAML, TOML or JSON, and NAME=VALUE on the command line. Sends nothing, uploads nothing.

The params of a kind say what a text means: a list may be written with commas, and a text stays one though it looks like a number.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin

from server.cli.failures import MISUSED, CommandFailed

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from jobs.task import JobKind, Params

JOB_FIELDS = ("kind", "params", "needs", "metadata")
PIPELINE_FIELDS = ("steps", "metadata")
STEP_FIELDS = ("name", "kind", "params", "after")


def read_file(file: Path, fields: Sequence[str]) -> dict[str, Any]:
    """The object in a file: YAML or TOML by its suffix, else JSON. fields: that it may have. Raises CommandFailed."""
    format_, parse = _FORMATS.get(file.suffix.lower(), _JSON)
    try:
        content = parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}", MISUSED) from None
    except ValueError as error:
        raise CommandFailed(f"{file} cannot be read as {format_}: {' '.join(str(error).split())}", MISUSED) from None
    if not isinstance(content, dict):
        raise CommandFailed(f"{file} holds no {format_} object: write {' and '.join(fields[:2])}", MISUSED)
    if problems := [*_unknown(content, fields), *_foreign(content)]:
        raise CommandFailed("\n".join(f"{file}: {problem}" for problem in problems), MISUSED)
    return content


def check_fields(content: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Raises CommandFailed with all names that are none of the fields."""
    if problems := _unknown(content, fields):
        raise CommandFailed("\n".join(problems), MISUSED)


def kind_named(text: Any) -> JobKind:
    """Raises CommandFailed for what is no kind."""
    from jobs.task import JobKind

    try:
        return JobKind.named(str(text))
    except ValueError as error:
        raise CommandFailed(str(error), MISUSED) from None


def params_of(kind: JobKind, pairs: Collection[str]) -> dict[str, Any]:
    """pairs: NAME=VALUE each, VALUE being JSON, a text, or a list of texts with commas. Raises CommandFailed with all that are not.

    A name that the kind does not have is passed on: the daemon says which was meant.
    """
    from jobs.tasks.kinds import task_for

    if wrong := [pair for pair in pairs if not pair.partition("=")[1] or not pair.partition("=")[0]]:
        raise CommandFailed("\n".join(f"expected NAME=VALUE, got {pair!r}" for pair in wrong), MISUSED)
    model = task_for(kind).params
    return {name: _value(model, name, text) for name, _, text in (pair.partition("=") for pair in pairs)}


# ---- inside ----


def _value(model: type[Params], name: str, text: str) -> Any:
    """The first reading of the text that the param may be; of none, the one whose error helps most."""
    from jobs.choices import spelt_as, types_of

    readings = [*_as_json(text), text]
    field = model.model_fields.get(name)
    if field is None:
        return readings[0]
    pieces = [next(iter(_as_json(piece)), piece) for piece in map(str.strip, text.split(","))]
    for reading in [*readings, pieces, [str(piece) for piece in text.split(",")]]:
        meant = spelt_as(field.annotation, reading)
        is_valid, value = _validated(field, meant)
        if is_valid:
            return value if isinstance(value, bool) else meant
    return pieces if any(get_origin(each) is list for each in types_of(field.annotation)) else readings[0]


def _validated(field: FieldInfo, value: Any) -> tuple[bool, Any]:
    from pydantic import TypeAdapter, ValidationError

    annotated: Any = Annotated[field.annotation, field]
    try:
        return True, TypeAdapter(annotated).validate_python(value)
    except ValidationError:
        return False, None


def _as_json(text: str) -> list[Any]:
    """The one value that the text is in JSON, if it is any."""
    try:
        return [json.loads(text)]
    except ValueError:
        return []


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


_JSON = ("JSON", json.loads)
_FORMATS: Mapping[str, tuple[str, Any]] = {".yaml": ("YAML", _yaml), ".yml": ("YAML", _yaml), ".toml": ("TOML", tomllib.loads)}


def _unknown(content: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    from jobs.choices import suggestion

    known = f"; there are {', '.join(fields)}"
    unknown = [str(name) for name in content if name not in fields]
    return [f"no such field {name!r}{suggestion(name, fields) or known}" for name in unknown]


def _foreign(value: Any, place: str = "") -> list[str]:
    """What JSON has no value for: dates of YAML and TOML, names that are no texts, numbers that are none."""
    match value:
        case dict():
            wrong = [name for name in value if type(name) is not str]
            names = [f"{place or 'it'}: the name {name!r} is no text: write it in quotes" for name in wrong]
            return names + [each for name, inner in value.items() for each in _foreign(inner, f"{place}.{name}".lstrip("."))]
        case list():
            return [each for number, inner in enumerate(value) for each in _foreign(inner, f"{place}.{number}")]
        case float() if not math.isfinite(value):
            return [f"{place}: {value} is no number that can be sent"]
        case str() | bool() | int() | float() | None:
            return []
    return [f"{place}: {value} is a {type(value).__name__}: write it in quotes"]
