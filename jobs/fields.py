"""What a job's params refer to: fields are declared once, on each kind's params, and one walk yields typed references. Pure.

Only a declared field is ever a file: a text that looks like a file's id or a path is nothing but a text anywhere else. `@ID`, the
version that another job makes, may stand in any field. Who needs references: permissions, admission, holds, ownership, the CLI.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Path = tuple[str | int, ...]  # keys and indices from the params' root
_CHOICE = "$choice"  # a search's list of values in the place of one
_UPLOAD = re.compile(r"file-[A-Za-z0-9]+")
_JOB = re.compile(r"@([A-Za-z0-9_-]+)")


class FieldKind(StrEnum):
    """What a text in a field may name, as the field's annotation declares."""

    FILE = "file"  # a file that is read: the id of an upload, or a path
    SOURCE = "source"  # a model to import: a reference, the id of an upload, or a path
    FOLDER = "folder"  # a folder that is read, where its text is a path; else a version
    OUTPUT = "output"  # a folder that is written
    ENDPOINT = "endpoint"  # a server, by its name in the configuration
    VERSION = "version"  # a version of the registry

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of a marked field has the mark as its format."""
        return {**handler(schema), "format": str(self)}


InputFile = Annotated[str, FieldKind.FILE]
ModelSource = Annotated[str, FieldKind.SOURCE]
FolderOrVersion = Annotated[str, FieldKind.FOLDER]
OutputFolder = Annotated[str, FieldKind.OUTPUT]
EndpointName = Annotated[str, FieldKind.ENDPOINT]
VersionName = Annotated[str, FieldKind.VERSION]


class ReferenceKind(StrEnum):
    """What a text refers to, by its field and its form."""

    JOB = "job"  # the version that another job makes
    UPLOAD = "upload"  # an uploaded file, by its id
    FILE = "file"  # a path of a file that is read
    SOURCE = "source"  # a model to import: a reference, or a path
    FOLDER = "folder"  # a path of a folder that is read
    OUTPUT = "output"  # a path of a folder that is written
    ENDPOINT = "endpoint"  # a server of the configuration
    VERSION = "version"  # a version of the registry


@dataclass(frozen=True, slots=True)
class Reference:
    """One text of the params that names something. name: the text, of a JOB its id. field: None where none is declared."""

    path: Path
    kind: ReferenceKind
    name: str
    field: FieldKind | None

    @property
    def param(self) -> str:
        """The dotted name of the field."""
        return ".".join(map(str, self.path))

    @property
    def is_privileged(self) -> bool:
        """Whether it reaches beyond uploads and the registry: paths of this machine, sources elsewhere, servers."""
        has_path = self.kind in (ReferenceKind.FILE, ReferenceKind.SOURCE, ReferenceKind.FOLDER)
        return has_path or self.field in (FieldKind.OUTPUT, FieldKind.ENDPOINT)


Declared = Iterator[tuple[Path, FieldKind]]


def references(declared: Declared, params: Any) -> Iterator[Reference]:
    """Everything that the params refer to, in their order. declared: the fields of `declared_fields`."""
    fields = dict(declared)
    for path, text in _texts(params, ()):
        field = fields.get(path)
        if (job := _JOB.fullmatch(text)) is not None:
            yield Reference(path, ReferenceKind.JOB, job[1], field)
        elif field is not None:
            yield Reference(path, _kind(field, text), text, field)


def jobs_in(params: Any) -> tuple[str, ...]:
    """Ids of the jobs whose versions the params name, each once, in order. The same for every kind."""
    return tuple(dict.fromkeys(each.name for each in references(iter(()), params)))


def declared_fields(model: type[BaseModel], params: Any, path: Path = ()) -> Declared:
    """Where the params have a text in a declared field, whether they are valid or not. model: declares them."""
    if isinstance(params, Mapping):
        for name, field in model.model_fields.items():
            if name in params:
                yield from _of_field(field, params[name], (*path, name))


def replaced(params: Any, texts: Mapping[Path, str], path: Path = ()) -> Any:
    """A copy of the params with other texts at these paths."""
    if path in texts:
        return texts[path]
    if isinstance(params, Mapping):
        return {key: replaced(value, texts, (*path, key)) for key, value in params.items()}
    if isinstance(params, list | tuple):
        return [replaced(value, texts, (*path, index)) for index, value in enumerate(params)]
    return params


def with_jobs(params: Any, versions: Mapping[str, str]) -> Any:
    """A copy of the params with other texts in place of `@ID`. versions: the text of each job, by its id."""
    return replaced(params, {each.path: versions[each.name] for each in references(iter(()), params)})


def _kind(field: FieldKind, text: str) -> ReferenceKind:
    if field in (FieldKind.FILE, FieldKind.SOURCE, FieldKind.FOLDER) and _UPLOAD.fullmatch(text):
        return ReferenceKind.UPLOAD
    if field is FieldKind.FOLDER and not _looks_like_path(text):
        return ReferenceKind.VERSION
    return ReferenceKind(str(field))


def _looks_like_path(text: str) -> bool:
    return any(mark in text for mark in ("/", "\\")) or text.startswith(("~", "."))


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every text among the params' values, wherever it is."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(each, (*path, key))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _texts(each, (*path, index))


def _of_field(field: FieldInfo, value: Any, path: Path) -> Declared:
    mark = _mark_among(field.metadata)
    yield from _of(field.annotation, value, path) if mark is None else _marked(mark, value, path)


def _of(annotation: Any, value: Any, path: Path) -> Declared:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        mark = _mark_among(arguments[1:])
        yield from _of(arguments[0], value, path) if mark is None else _marked(mark, value, path)
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from _of(each, value, path)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from declared_fields(annotation, value, path)
    elif origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _of(arguments[0], each, (*path, index))


def _mark_among(metadata: Sequence[Any]) -> FieldKind | None:
    return next((each for each in metadata if isinstance(each, FieldKind)), None)


def _marked(mark: FieldKind, value: Any, path: Path) -> Declared:
    if isinstance(value, str):
        yield path, mark
    elif isinstance(value, Mapping) and isinstance(choices := value.get(_CHOICE), list):
        for index, each in enumerate(choices):
            yield from _marked(mark, each, (*path, _CHOICE, index))
