"""Lists and objects of requests, refused by their length before any of their entries is looked at. Knows no fields."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

T = TypeVar("T")
FAIL_FAST: Any = Field(fail_fast=True)  # of a list, the first entry at fault is reported, and the rest is not read


def at_most(most: int) -> BeforeValidator:
    """Stands right of the type's other validators, so that it runs before them."""

    def check(value: T) -> T:
        if isinstance(value, list | dict) and len(value) > most:
            counts = {"given": len(value), "most": most}
            raise PydanticCustomError("too_long", "has {given} entries; at most {most} are possible", counts)
        return value

    return BeforeValidator(check)
