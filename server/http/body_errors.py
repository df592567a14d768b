"""What is wrong with a request's body: its errors, its text encoding, and lists of fields with bounds. Knows no route.

The errors are HTTPExceptions, so that FastAPI lets them pass while it reads a body. No message quotes the body.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException


class BodyTooLarge(HTTPException):
    """The request's body is over the limit, as sent or once it is decompressed."""

    def __init__(self, max_body_bytes: int) -> None:
        message = (
            f"The request body is over {max_body_bytes} bytes; send less, or raise max_body_bytes (for uploads: max_upload_bytes)."
        )
        # What was not read would be taken for the next request, so the connection ends.
        super().__init__(413, message, {"Connection": "close"})


class InvalidBody(HTTPException):
    """The request's body is not JSON in UTF-8. param: the dotted path of the field at fault, when it is known."""

    def __init__(self, problem: str, param: str | None = None) -> None:
        super().__init__(400, f"The request body is not valid JSON: {problem}.")
        self.param = param


class BodyTooComplex(HTTPException):
    """The request's body is JSON with more in it than any request needs: values, members, depth, digits."""

    def __init__(self, problem: str) -> None:
        super().__init__(400, f"The request body {problem}.")


class UnsupportedCoding(HTTPException):
    """The body is compressed in a way that is not read here."""

    def __init__(self, coding: str) -> None:
        message = f"The Content-Encoding {coding!r} is not read here: send the body as it is, or compressed with gzip."
        super().__init__(415, message, {"Accept-Encoding": "gzip", "Connection": "close"})


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
