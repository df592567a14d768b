"""The failures of requests in any engine: their messages, kinds and codes. Pure."""

from __future__ import annotations

from runtime.batching.sampler import NothingToChoose
from runtime.batching.sequence import Sequence
from runtime.protocol.errors import FailureKind, OverCapacity, RuntimeFailure
from runtime.protocol.events import Failed
from runtime.text.constraints.constraint import ConstraintBroken, GrammarTooComplex


def queue_full(max_waiting: int, retry_after_s: float = 1.0) -> OverCapacity:
    return OverCapacity(
        f"The model's queue is full: at most {max_waiting} answers may wait. Retry later, or send fewer at a time.",
        code="queue_full",
        retry_after_s=max(1.0, retry_after_s),
    )


def too_late(sequence: Sequence, now: float) -> Failed:
    waited = now - sequence.arrived_at
    return Failed(
        request=sequence.request,
        kind=FailureKind.NOT_READY,
        message=f"The request was not finished within its deadline ({waited:.1f} s). Retry, or request fewer tokens.",
        code="deadline_exceeded",
        retry_after_s=1.0,
    )


def broken(request: int, error: BaseException) -> Failed:
    """The message names the error's type. It leaves out the error's text, which may quote a prompt."""
    match error:
        case NothingToChoose():
            message = (
                "The model left no token to choose: its scores are not numbers, or the request's parameters exclude every token."
            )
            code = "no_token"
        case GrammarTooComplex(field=field):
            return Failed(
                request=request,
                kind=FailureKind.INVALID_REQUEST,
                message=f"{field.quoted} is too complex to be followed further: its grammar outgrew a limit. Send a simpler one.",
                field=field,
                code="grammar_too_complex",
            )
        case ConstraintBroken():
            message = "The answer's grammar could not be followed any further. Use a simpler schema or grammar, or retry."
            code = "constraint_broken"
        case _:
            message = f"The model failed while working on this request ({type(error).__name__}). It may be retried."
            code = "step_failed"
    return Failed(request=request, kind=FailureKind.STEP_FAILED, message=message, code=code)


def failed(request: int, failure: RuntimeFailure) -> Failed:
    """A worker's report of a failure that has a type of its own."""
    return Failed(
        request=request,
        kind=failure.kind,
        message=failure.message,
        field=failure.field,
        code=failure.code,
        retry_after_s=failure.retry_after_s,
    )
