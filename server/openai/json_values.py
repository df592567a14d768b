"""JSON values that a request passes on as they are, such as schemas and arguments: within what can be sent to a worker."""

from __future__ import annotations

from typing import Any

import msgspec

from server.json_meter import JsonLimits, TooComplex, measure
from server.openai.errors import InvalidParam

MAX_DEPTH = 100
_LIMITS = JsonLimits(depth=MAX_DEPTH)


def check_json_value(value: Any, param: str) -> None:
    """Raises InvalidParam for a whole number beyond 64 bits, and for what is nested more than MAX_DEPTH deep."""
    try:
        msgspec.msgpack.encode(value)
    except OverflowError:
        message = f"{param!r} holds a whole number beyond 64 bits; send it as text, or leave it out."
        raise InvalidParam(message, param=param) from None
    try:
        measure(msgspec.json.encode(value), _LIMITS)
    except TooComplex as error:
        raise InvalidParam(f"{param!r} {error}.", param=param) from None
