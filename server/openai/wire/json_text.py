"""JSON texts inside of fields, such as the arguments of calls: read within the limits of bodies, for which they count as texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from server.json_meter import JsonLimits, TooComplex, measure

_LIMITS = JsonLimits()


def read_json_text(text: str) -> Any:
    """Raises ValueError, whose message says what is wrong with the text."""
    try:
        measure(text.encode(), _LIMITS)
        return msgspec.json.decode(text)
    except TooComplex as error:
        raise ValueError(str(error)) from None
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("is not valid JSON") from None


def check_together(texts: Iterable[str]) -> None:
    """Raises ValueError when the texts of one request together hold more than one body may."""
    num_values = num_members = 0
    for text in texts:
        try:
            meter = measure(text.encode(), _LIMITS)
        except TooComplex as error:
            raise ValueError(f"has a JSON text that {error}") from None
        num_values += meter.num_values
        num_members += meter.num_members
        if num_values > _LIMITS.num_values or num_members > _LIMITS.num_members:
            raise ValueError("has JSON texts that together hold more than a body may; send fewer")
