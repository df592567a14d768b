"""Where a job's params name files, folders and endpoints: declared on the fields of each kind's params, and found by them. Pure.

Only a declared field is ever a file: a text that looks like a file's id or a path is nothing but a text anywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Path = tuple[str | int, ...]  # keys and indices from the params' root
_CHOICE = "$choice"  # a search's list of values in the place of one


class Place(StrEnum):
    """What a text in a field names."""

    FILE = "file"  # a file that is read: the id of an upload, or a path
    SOURCE = "source"  # a model to import: a reference, the id of an upload, or a path
    FOLDER = "folder"  # a folder that is read, where its text is a path; else a version
    OUTPUT = "output"  # a folder that is written
    ENDPOINT = "endpoint"  # a server, by its name in the configuration


InputFile = Annotated[str, Place.FILE]
ModelSource = Annotated[str, Place.SOURCE]
FolderOrVersion = Annotated[str, Place.FOLDER]
OutputFolder = Annotated[str, Place.OUTPUT]
EndpointName = Annotated[str, Place.ENDPOINT]


@dataclass(frozen=True, slots=True)
class Placed:
    """One text of the params, with what its field declares it to name."""

    path: Path
    place: Place
    text: str

    @property
    def param(self) -> str:
        """The dotted name of the field."""
        return ".".join(map(str, self.path))


def placed_in(model: type[BaseModel], params: Any, path: Path = ()) -> Iterator[Placed]:
    """Every text in a declared field, whether the params are valid or not. model: declares them."""
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


def _of_field(field: FieldInfo, value: Any, path: Path) -> Iterator[Placed]:
    place = _place_among(field.metadata)
    yield from _of(field.annotation, value, path) if place is None else _texts(place, value, path)


def _of(annotation: Any, value: Any, path: Path) -> Iterator[Placed]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        place = _place_among(arguments[1:])
        yield from _of(arguments[0], value, path) if place is None else _texts(place, value, path)
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from _of(each, value, path)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from placed_in(annotation, value, path)
    elif origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _of(arguments[0], each, (*path, index))


def _place_among(metadata: Sequence[Any]) -> Place | None:
    return next((each for each in metadata if isinstance(each, Place)), None)


def _texts(place: Place, value: Any, path: Path) -> Iterator[Placed]:
    if isinstance(value, str):
        yield Placed(path, place, value)
    elif isinstance(value, Mapping) and isinstance(choices := value.get(_CHOICE), list):
        for index, each in enumerate(choices):
            yield from _texts(place, each, (*path, _CHOICE, index))
