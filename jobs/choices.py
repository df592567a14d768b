"""Choices and names as people spell them: `LoRA` for `lora`, `fine-tune` for `finetune`, `epoch` for `epochs`. Pure.

A spelling that differs only in case, spaces, dashes and underscores from exactly one choice means that choice. Anything else is
left as it is, for validation to refuse, and the nearest names are suggested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_LIKENESS = 0.6  # difflib's ratio from which a name is suggested
_SEPARATORS = str.maketrans("", "", " -_")


def meant(text: str, choices: Iterable[str]) -> str | None:
    """The one choice that the text spells; None when there is none, or several."""
    known = tuple(choices)
    if text in known:
        return text
    found = [choice for choice in known if _folded(choice) == _folded(text)]
    return found[0] if len(found) == 1 else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None when none is like it."""
    by_spelling = {_folded(each): str(each) for each in known}
    found = get_close_matches(_folded(name), by_spelling, n=1, cutoff=_LIKENESS)
    return by_spelling[found[0]] if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'epochs'?`, or nothing."""
    found = nearest(name, known)
    return f"; did you mean {found!r}?" if found is not None else ""


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The texts that a field may have. Empty where it may have any text, or none."""
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(str(each) for each in annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return tuple(each for each in arguments if isinstance(each, str))
    if origin is Annotated:
        return choices_of(arguments[0])
    if origin in (Union, UnionType) and str not in types_of(annotation):
        return tuple(choice for each in arguments for choice in choices_of(each))
    return ()


def spelt(model: type[BaseModel], params: Any) -> Any:
    """A copy of the params with every choice as the model declares it. params: valid or not, of any JSON type."""
    if not isinstance(params, Mapping):
        return params
    fields = model.model_fields
    return {name: spelt_as(fields[name].annotation, value) if name in fields else value for name, value in params.items()}


def spelt_as(annotation: Any, value: Any) -> Any:
    """As `spelt`, of one value and its type."""
    if isinstance(value, str):
        return meant(value, choices_of(annotation)) or value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return spelt_as(arguments[0], value)
    if origin in (Union, UnionType):
        for each in arguments:
            value = spelt_as(each, value)
        return value
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return spelt(annotation, value)
    if origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        return [spelt_as(arguments[0], each) for each in value]
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: spelt_as(arguments[1], each) for key, each in value.items()}
    return value


def types_of(annotation: Any) -> list[Any]:
    """The types that a value may have."""
    if get_origin(annotation) is Annotated:
        return types_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for each in get_args(annotation) for member in types_of(each)]
    return [annotation]


def _folded(text: str) -> str:
    return text.casefold().translate(_SEPARATORS)
