"""OpenAI's error envelope, and what the API's description says of errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


class ProblemBody(BaseModel):
    """One of several things wrong with a job; file and line (from 1): where in its data."""

    message: str
    param: str | None
    file: str | None
    line: int | None
    code: str


class ErrorBody(BaseModel):
    """OpenAI's error: what was wrong, its class, the field at fault, and a code for programs. problems: of a job, each one."""

    message: str
    type: str
    param: str | None
    code: str | None
    problems: list[ProblemBody] | None = None


class ErrorEnvelope(BaseModel):
    error: ErrorBody


MEANINGS: Mapping[int, str] = {
    400: "The request is invalid or needs something that is not supported; `param` names the field.",
    401: "The API key is missing, unknown, expired or revoked.",
    403: "The key lacks a scope, or the Host or the Origin of the request is not allowed.",
    404: "There is no such model or path.",
    409: "Its status does not allow that; the message names the status that does.",
    413: "The request body is too large.",
    422: "It cannot be done with what is there; the message says what to change.",
    429: "The queue is full; retry after the seconds in Retry-After.",
    500: "The request failed; it may be retried.",
    501: "This server does not support that; the message names an alternative.",
    503: "The model is loading or restarting, or the server is shutting down; retry after the seconds in Retry-After.",
    507: "There is not enough disk space, or the home cannot be written to; the message says what to do.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for OpenAPI. 401 and 403 can always happen."""
    others: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope, "description": "Any other error."}}
    return others | {status: {"model": ErrorEnvelope, "description": MEANINGS[status]} for status in sorted({401, 403, *statuses})}
