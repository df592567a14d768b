"""What pydantic found wrong with params, as problems: one for each field, with the choices, and with what was probably meant.

The fields of the model are walked beside the path of an error, so that a problem names a field as its owner wrote it: pydantic's
paths hold the names of types, too, where a value may be of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jobs.choices import choices_of, suggestion, types_of
from jobs.task import Params, Problem

_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unsupported_parameter"}  # of kinds of validation errors
_CHOICE_ERRORS = ("enum", "literal_error")


def problems_of(error: ValidationError, params: type[Params], kind: str | None = None) -> list[Problem]:
    """What is wrong with params, a problem for each field. kind: of the job, where a person may look up its params.

    A value that may be an object or something else is taken for what it looks like: problems within it are the problems.
    """
    found: dict[str | None, Problem] = {}
    for each in error.errors(include_url=False):
        problem = _problem(each, params, kind)
        before = found.get(problem.param)
        found[problem.param] = problem if before is None else _joined(before, problem)
    inner = tuple(str(name) for name in found)
    return [problem for name, problem in found.items() if not any(each.startswith(f"{name}.") for each in inner)]


def _problem(error: ErrorDetails, params: type[Params], kind: str | None) -> Problem:
    path, types = _place(error, params)
    name, code = ".".join(map(str, path)) or None, _CODES.get(error["type"], "invalid_value")
    if error["type"] == "extra_forbidden":
        known = [field for model in _models(types) for field in model.model_fields]
        hint = suggestion(str(error["loc"][-1]), known) or _look_up(known, kind if len(path) == 1 else None)
        return Problem(f"no such param {name!r}{hint}", param=name, code=code)
    message = error["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    if error["type"] in _CHOICE_ERRORS and isinstance(error["input"], str):
        message += suggestion(error["input"], [choice for each in types for choice in choices_of(each)])
    return Problem(f"{name}: {message}" if name else message, param=name, code=code)


def _look_up(known: Sequence[str], kind: str | None) -> str:
    return f"; `slmops jobs kinds {kind}` lists them" if kind else f"; there are {', '.join(known)}"


def _joined(one: Problem, other: Problem) -> Problem:
    """Two of the types that a value may have, neither of which it has."""
    more = other.message.removeprefix(f"{other.param}: ")
    return one if more in one.message else Problem(f"{one.message}; or: {more}", param=one.param, code=one.code)


def _place(error: ErrorDetails, params: type[Params]) -> tuple[tuple[str | int, ...], list[Any]]:
    """(names and indices of the fields, the types that may stand there; of a misspelt field, the models that lack it)."""
    path: tuple[str | int, ...] = ()
    types: list[Any] = [params]
    for number, part in enumerate(error["loc"], 1):
        if number == len(error["loc"]) and error["type"] == "extra_forbidden":
            return (*path, part), types
        following = [model.model_fields[part].annotation for model in _models(types) if part in model.model_fields]
        if not following and (isinstance(part, int) or [get_origin(each) for each in types] == [dict]):
            following = [get_args(each)[-1] for each in types if get_origin(each) in (list, tuple, dict)]
        if following:
            path, types = (*path, part), [each for one in following for each in types_of(one)]
    return path, types


def _models(types: Sequence[Any]) -> list[type[BaseModel]]:
    return [each for each in types if isinstance(each, type) and issubclass(each, BaseModel)]
