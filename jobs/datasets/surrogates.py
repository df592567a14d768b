"""Which text of a JSON line holds half of a surrogate pair: an escape of UTF-16 that is no character alone. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

_HALF = re.compile("[\ud800-\udfff]")


def broken_text(line: str) -> str | None:
    """The dotted name of the first field, as `messages.0.content`; None when there is none, or the line is no JSON."""
    try:
        return _found(json.loads(line), "")
    except (ValueError, RecursionError):
        return None


def _found(value: Any, place: str) -> str | None:
    """A name that is broken itself is not shown."""
    if isinstance(value, str):
        return place if _HALF.search(value) else None
    if isinstance(value, dict):
        if any(_HALF.search(name) for name in value):
            return f"A field's name{f' in {place}' if place else ''}"
        inner = ((value[name], f"{place}.{name}" if place else name) for name in value)
    elif isinstance(value, list):
        inner = ((each, f"{place}.{index}") for index, each in enumerate(value))
    else:
        return None
    return next((found for each, where in inner if (found := _found(each, where)) is not None), None)
