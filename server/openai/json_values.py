"""JSON values that a request passes on as they are, such as schemas and arguments: within what can be sent to a worker."""

from __future__ import annotations

from typing import Any

from runtime.errors import InvalidRequest

MAX_DEPTH = 100


def check_json_value(value: Any, param: str) -> None:
    """Raises InvalidRequest for a whole number beyond 64 bits, and for what is nested more than MAX_DEPTH deep."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"{param!r} is nested more than {MAX_DEPTH} deep; send something flatter.", param=param)
        if any(isinstance(each, int) and not -(2**63) <= each < 2**64 for each in level):
            raise InvalidRequest(f"{param!r} holds a whole number beyond 64 bits; send it as text, or leave it out.", param=param)
        level = [inner for each in level for inner in _inside(each)]
        depth += 1


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
