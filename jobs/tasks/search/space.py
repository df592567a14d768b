"""What a search may vary: markers in params, and the values in their place. Pure.

{"$float": [low, high]} or [low, high, "log"]; {"$int": [low, high]} or with "log"; {"$choice": [values]}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

Kind = Literal["float", "int", "choice"]
_KINDS: Mapping[str, Kind] = {"$float": "float", "$int": "int", "$choice": "choice"}


@dataclass(frozen=True, slots=True)
class Range:
    """path: dotted. low, high: for numbers. values: for a choice."""

    path: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    values: tuple[Any, ...] = ()

    @property
    def first(self) -> Any:
        """The plainest value."""
        if self.kind == "choice":
            return self.values[0]
        return int(self.low) if self.kind == "int" else self.low


def ranges(params: Any, path: str = "") -> Iterator[Range]:
    """The ranges in the params, in order. Raises ValueError for an invalid marker."""
    if isinstance(params, Mapping):
        if len(params) == 1 and (name := next(iter(params))) in _KINDS:
            yield _range(path, _KINDS[name], params[name])
            return
        for name, value in params.items():
            yield from ranges(value, f"{path}.{name}" if path else str(name))


def extremes(params: Any) -> Iterator[Any]:
    """The params with each value that a choice has, and with both ends of each range, the others being their plainest values."""
    for varied in ranges(params):
        ends = (int(varied.low), int(varied.high)) if varied.kind == "int" else (varied.low, varied.high)
        for value in varied.values or ends:
            values = {varied.path: value}
            yield filled(params, partial(_value_in, values))


def _value_in(values: Mapping[str, Any], each: Range) -> Any:
    """By the path; the plainest one where there is none."""
    return values.get(each.path, each.first)


def filled(params: Any, value_of: Callable[[Range], Any], path: str = "") -> Any:
    """The params with values in place of markers."""
    if isinstance(params, Mapping):
        if len(params) == 1 and (name := next(iter(params))) in _KINDS:
            return value_of(_range(path, _KINDS[name], params[name]))
        return {name: filled(value, value_of, f"{path}.{name}" if path else str(name)) for name, value in params.items()}
    return params


def _range(path: str, kind: Kind, given: Any) -> Range:
    if kind == "choice":
        if not isinstance(given, list) or not given or any(isinstance(value, list | dict) for value in given):
            raise ValueError(f"{path}: $choice takes a list of plain values that is not empty")
        return Range(path, kind, values=tuple(given))
    numbers, is_log = (given[:2], given[2:] == ["log"]) if isinstance(given, list) else ([], False)
    is_sound = len(numbers) == 2 and all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    if not is_sound or (len(given) > 2 and not is_log) or numbers[0] >= numbers[1] or (is_log and numbers[0] <= 0):
        raise ValueError(f'{path}: ${kind} takes [low, high] or [low, high, "log"], with 0 < low for log')
    if kind == "int" and any(isinstance(number, float) for number in numbers):
        raise ValueError(f"{path}: $int takes whole numbers")
    return Range(path, kind, numbers[0], numbers[1], is_log)
