"""The table of failures: which exception becomes which status, kind, code and Retry-After. Dialects write what comes of it.

Every error leaves the daemon through `reply_to`, as an HTTP response or as an event of a stream that has begun.
Knows nothing of routes, and never puts a request's content or an unexpected exception's text into a reply.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from jobs import job as jobs
from jobs.task import InvalidJob, JobFailure, Problem
from model_registry import errors as registry
from model_registry import keys
from model_registry.uploads import FileNotKnown
from runtime.protocol import errors as runtime
from server.http.access import ForeignPage
from server.http.body_errors import BodyTooComplex, BodyTooLarge, InvalidBody, UnsupportedCoding
from server.http.disconnection import ClientGone
from server.http.request_record import RequestRecord
from server.principal import InsufficientScope


class ErrorKind(StrEnum):
    """Whose fault an error is, coarser than its code. Dialects have words of their own for it."""

    INVALID = auto()  # the request's
    AUTHENTICATION = auto()
    PERMISSION = auto()
    RATE_LIMIT = auto()
    SERVER = auto()
    NOT_IMPLEMENTED = auto()


INVALID = ErrorKind.INVALID
SERVER = ErrorKind.SERVER
PERMISSION = ErrorKind.PERMISSION


class ModelNotLoadedError(Exception):
    """An operation on a loaded model named one that is not."""

    def __init__(self, name: str, loaded: Sequence[str]) -> None:
        known = f"loaded are: {', '.join(loaded)}" if loaded else "no model is loaded"
        super().__init__(f"The model {name!r} is not loaded; {known}.")


class FileInUse(Exception):
    """An uploaded file is to be deleted that a job will still read."""

    def __init__(self, file: str, job: str, status: str) -> None:
        super().__init__(f"The job {job} reads the file {file}, and is {status}. Cancel the job, or wait for its end.")


class NotImplementedHere(Exception):
    """An operation of OpenAI's API that this server does not do."""

    headers: Mapping[str, str] = {"X-Should-Retry": "false"}  # OpenAI's clients would retry it, as any 5xx


class DrainingError(Exception):
    """The daemon is shutting down."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down; retry against it after its restart, or another one.")


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. retry_after_s and code are defaults, which the exception may override."""

    status: int
    kind: ErrorKind
    code: str | None
    retry_after_s: float | None = None
    param: str | None = None


TABLE: Mapping[type[Exception], Rule] = {
    runtime.InvalidRequest: Rule(400, INVALID, "invalid_value"),
    runtime.OverCapacity: Rule(429, ErrorKind.RATE_LIMIT, "over_capacity", retry_after_s=1),
    runtime.NotReady: Rule(503, SERVER, "not_ready", retry_after_s=2),
    runtime.StepFailed: Rule(500, SERVER, "step_failed"),
    runtime.EngineDead: Rule(503, SERVER, "engine_dead", retry_after_s=1),
    ClientGone: Rule(499, INVALID, "client_gone"),
    DrainingError: Rule(503, SERVER, "draining", retry_after_s=5),
    ModelNotLoadedError: Rule(404, INVALID, "model_not_loaded", param="name"),
    BodyTooLarge: Rule(413, INVALID, "body_too_large"),
    BodyTooComplex: Rule(400, INVALID, "body_too_complex"),
    UnsupportedCoding: Rule(415, INVALID, "unsupported_content_encoding"),
    InvalidBody: Rule(400, INVALID, "invalid_json"),
    InsufficientScope: Rule(403, PERMISSION, "insufficient_scope"),
    ForeignPage: Rule(403, PERMISSION, "origin_not_allowed"),
    NotImplementedHere: Rule(501, ErrorKind.NOT_IMPLEMENTED, "not_implemented"),
    InvalidJob: Rule(400, INVALID, "invalid_value", param="params"),
    jobs.JobNotFound: Rule(404, INVALID, "job_not_found", param="id"),
    jobs.WrongStatus: Rule(409, INVALID, "wrong_status"),
    jobs.JobsElsewhere: Rule(409, INVALID, "jobs_elsewhere"),
    jobs.TooManyPlans: Rule(429, ErrorKind.RATE_LIMIT, "too_many_plans", retry_after_s=5),
    jobs.QueueClosing: Rule(503, SERVER, "draining", retry_after_s=5),
    JobFailure: Rule(422, INVALID, "failed"),
    FileInUse: Rule(409, INVALID, "file_in_use", param="file_id"),
    FileNotKnown: Rule(404, INVALID, "file_not_found", param="file_id"),
    keys.KeyNotFound: Rule(404, INVALID, "key_not_found", param="id"),
    keys.KeyNameTaken: Rule(409, INVALID, "key_name_taken", param="name"),
    keys.InvalidKeyName: Rule(400, INVALID, "invalid_value", param="name"),
    registry.ModelNotFound: Rule(404, INVALID, "model_not_found", param="model"),
    registry.NameTaken: Rule(409, INVALID, "name_taken", param="alias"),
    registry.InvalidName: Rule(404, INVALID, "model_not_found", param="model"),
    registry.InvalidReference: Rule(400, INVALID, "invalid_reference", param="model"),
    registry.ModelInUse: Rule(409, INVALID, "model_in_use", param="model"),
    registry.UnsupportedModel: Rule(422, INVALID, "unsupported_model", param="model"),
    registry.UnloadableModel: Rule(422, INVALID, "unloadable_model", param="model"),
    registry.SourceUnavailable: Rule(502, SERVER, "source_unavailable"),
    registry.ChecksumMismatch: Rule(502, SERVER, "checksum_mismatch"),
    registry.CorruptModel: Rule(500, SERVER, "corrupt_model"),
    registry.OutOfDisk: Rule(507, SERVER, "out_of_disk"),
    registry.NotWritable: Rule(507, SERVER, "not_writable"),
    registry.RegistryBusy: Rule(503, SERVER, "registry_busy", retry_after_s=2),
    registry.RegistryError: Rule(500, SERVER, "registry_error"),
}
BY_STATUS: Mapping[int, Rule] = {
    401: Rule(401, ErrorKind.AUTHENTICATION, "invalid_api_key"),
    403: Rule(403, PERMISSION, "forbidden"),
    404: Rule(404, INVALID, "unknown_url"),
    405: Rule(405, INVALID, "method_not_allowed"),
}
_CODES = {"missing": "missing_required_parameter", "unsupported": "unsupported_parameter"}  # of kinds of validation errors
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
UNEXPECTED = Rule(500, SERVER, "internal_error")
UNEXPECTED_MESSAGE = "The server failed on this request; its log has the details under the id in X-Request-Id."


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error, ready to be written by a dialect: as a response, or as the last event of a stream.

    field: the part of the request at fault, for the dialect to name; param: its name, where that is known already.
    """

    status: int
    message: str
    kind: ErrorKind
    code: str | None
    param: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    problems: Sequence[Problem] = ()
    field: runtime.Field | None = None

    def response(self, scope: Scope) -> Response:
        """As the request with this ASGI scope wants its errors written."""
        writer = RequestRecord.of(scope).error_writer
        assert writer is not None, "the layer that observes requests gives each a writer"
        return Response(writer.body(self), self.status, dict(self.headers), media_type="application/json")


def reply_to(error: Exception, *, where: str = "this path") -> ErrorReply:
    """The reply to any exception. where: method and path, named when there is no such route."""
    if isinstance(error, RequestValidationError):
        return _validation_reply(error.errors())
    rule = next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), None)
    if rule is None and isinstance(error, HTTPException):
        return _http_reply(error, where)
    if rule is None:
        return ErrorReply(UNEXPECTED.status, UNEXPECTED_MESSAGE, UNEXPECTED.kind, UNEXPECTED.code)
    own = getattr(error, "retry_after_s", None)
    retry_after_s = rule.retry_after_s if own is None else own  # 0: to retry is in vain
    headers = dict(getattr(error, "headers", None) or {})
    if retry_after_s:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return ErrorReply(
        rule.status,
        error.detail if isinstance(error, HTTPException) else str(error),
        rule.kind,
        getattr(error, "code", None) or rule.code,
        getattr(error, "param", None) or rule.param,
        headers,
        tuple(getattr(error, "problems", ())),
        getattr(error, "field", None),
    )


def _http_reply(error: HTTPException, where: str) -> ErrorReply:
    fallback = Rule(error.status_code, INVALID if error.status_code < 500 else SERVER, None)
    rule = BY_STATUS.get(error.status_code, fallback)
    message = error.detail
    if error.status_code == 404 and message == "Not Found":
        message = f"Unknown request URL: {where}. The API is described at /docs."
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"Method not allowed: {where}. Use {allowed}."
    param = "body" if error.status_code == 400 else None  # what the framework refuses by 400 is a form it cannot read
    return ErrorReply(rule.status, message, rule.kind, rule.code, param, dict(error.headers or {}))


def _validation_reply(problems: Sequence[Any]) -> ErrorReply:
    """FastAPI's list of problems as one error: the first one sets `param`, the next four are only part of the message."""
    texts = []
    for problem in problems[:5]:
        name, message = _dotted(problem["loc"]), str(problem["msg"]).removeprefix("Value error, ")
        texts.append(f"{name or 'the request body'}: {message[:1].lower()}{message[1:]}")
    return ErrorReply(
        400,
        f"Invalid request. {'; '.join(texts)}.",
        INVALID,
        _CODES.get(problems[0]["type"], "invalid_value"),
        _dotted(problems[0]["loc"]) or str(problems[0]["loc"][0]),
    )


def _dotted(location: Sequence[str | int]) -> str:
    """("body", "messages", 0, "role") -> "messages.0.role"."""
    return ".".join(str(part) for part in location[1:])


def _allowed(request: Request, allow_header: str) -> str:
    """Every method of the path.

    Where several routes share a path, the router's own header (`allow_header`) has the first one's only.
    """
    scope = dict(request.scope)
    routes = request.app.routes
    found = [method for method in _METHODS if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)]
    return ", ".join(dict.fromkeys([*allow_header.split(", "), *found]))


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:
        error = HTTPException(405, error.detail, {"Allow": _allowed(request, (error.headers or {}).get("Allow", "GET"))})
    reply = reply_to(error, where=f"{request.method} {request.url.path}")
    RequestRecord.of(request.scope).code = reply.code
    return reply.response(request.scope)


def install(app: FastAPI) -> None:
    """Makes every exception that the app's routes raise leave through the table, save the unexpected ones: those are
    answered, and logged, where the request is observed."""
    for kind in (runtime.RuntimeFailure, RequestValidationError, HTTPException, *TABLE):
        app.add_exception_handler(kind, _answer)
