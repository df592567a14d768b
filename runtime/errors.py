"""What can go wrong with a request or a model, in five kinds. `server/errors.py` maps each kind to a status, once.

RuntimeFailure
├── InvalidRequest     the caller must change something          400
├── OverCapacity       queue full: retry later                   429 + Retry-After
├── NotReady           loading, draining or could not load       503 + Retry-After
├── StepFailed         this request failed; it may be retried    500
└── EngineDead         the worker is gone and will be restarted  503
"""

from __future__ import annotations

from enum import StrEnum


class FailureKind(StrEnum):
    """The wire form of the exception classes below, as a worker reports them."""

    INVALID_REQUEST = "invalid_request"
    OVER_CAPACITY = "over_capacity"
    NOT_READY = "not_ready"
    STEP_FAILED = "step_failed"
    ENGINE_DEAD = "engine_dead"


class RuntimeFailure(Exception):
    """The root. message: what was wrong and what to do; param: the request field at fault; code: OpenAI's machine-readable code.

    retry_after_s: when to try again; 0 when that is in vain, None when nobody can tell.
    """

    kind: FailureKind

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s


class InvalidRequest(RuntimeFailure):
    kind = FailureKind.INVALID_REQUEST


class OverCapacity(RuntimeFailure):
    kind = FailureKind.OVER_CAPACITY


class NotReady(RuntimeFailure):
    kind = FailureKind.NOT_READY


class StepFailed(RuntimeFailure):
    kind = FailureKind.STEP_FAILED


class EngineDead(RuntimeFailure):
    kind = FailureKind.ENGINE_DEAD


BY_KIND: dict[FailureKind, type[RuntimeFailure]] = {
    cls.kind: cls for cls in (InvalidRequest, OverCapacity, NotReady, StepFailed, EngineDead)
}
