"""Dates and times that exist: what the grammars of JSON Schema's formats leave out. Pure.

They would have 2023-02-29, the year 0000 and second 60 pass, which programs that read an answer's dates refuse.
"""

from __future__ import annotations

import copy
from typing import Any

from runtime.constraints.json_schema import subschemas

_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = f"({_YEAR}-(02-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-[0-9]{{2}})|{_LEAP_YEAR}-02-29)"
_TIME = "[0-9]{2}:[0-9]{2}:[0-5][0-9]"
_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}", "date-time": f"^{_DATE}[tT]{_TIME}"}


def with_real_dates(schema: Any) -> Any:
    """A copy whose dates and times have a `pattern` beside their `format`."""
    copied = copy.deepcopy(schema)
    left = [copied]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left.extend(subschemas(part))
            _add_pattern(part)
    return copied


def _add_pattern(schema: dict[str, Any]) -> None:
    kind = schema.get("format")
    if not isinstance(kind, str) or kind not in _PATTERNS:
        return
    if "pattern" not in schema:
        schema["pattern"] = _PATTERNS[kind]
    elif isinstance(others := schema.setdefault("allOf", []), list):
        others.append({"pattern": _PATTERNS[kind]})
