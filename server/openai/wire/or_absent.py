"""A field of an answer that is left out, not null, when there is nothing to say: clients of OpenAI's API never see it."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field

_T = TypeVar("_T")
OrAbsent = Annotated[_T | None, Field(exclude_if=lambda value: value is None)]
