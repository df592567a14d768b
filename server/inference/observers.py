"""Who is notified of a request's life: metrics and the log line; later tracing, capture, analysis of roll-outs.

The composition root makes one list of observers, which serves all requests. What an observer needs of a request, the values here
carry. Observers change nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec

from runtime.protocol.errors import InvalidRequest, OverCapacity, RuntimeFailure
from runtime.protocol.events import Chunk, Finished, Started
from server.http.request_record import RequestRecord
from server.inference.request import InferenceRequest
from server.inference.resolution import Resolution

P = ParamSpec("P")
_log = logging.getLogger("slmops.observers")


@dataclass(frozen=True, slots=True)
class ObservedRequest:
    """record: of the HTTP request that it came with: its id, when it arrived, its line in the log."""

    resolution: Resolution
    request: InferenceRequest
    record: RequestRecord


@dataclass(slots=True)
class ObservedChoice:
    """One answer of a request, as far as it has come. Written by `ObservedGeneration` alone, before observers hear of it.

    index: as clients see it. num_new: tokens that came last. gap_s: between them and the tokens before; None for the first.
    first_token_s: from the request's arrival to the first token.
    """

    request: ObservedRequest
    index: int = 0
    num_tokens: int = 0
    num_new: int = 0
    gap_s: float | None = None
    first_token_s: float | None = None


class RequestObserver:
    """Hears of every request that names a model. A subclass overrides what it wants to hear; all run on the event loop.

    A request has `begun`, and then is either `refused` or `submitted`. Each choice of a submitted one ends once: `finished`,
    `failed` or `aborted`. Nothing may be changed, waited for or raised; what is raised all the same is logged, once per type.
    """

    def begun(self, request: ObservedRequest) -> None:
        """Its name has a meaning, and it waits for its model."""

    def refused(self, request: ObservedRequest, error: BaseException) -> None:
        """It got no model, or the model's worker took none of it. A client that left while it waited is a CancelledError."""

    def submitted(self, request: ObservedRequest) -> None:
        """It has its model; its choices go to the engine."""

    def started(self, choice: ObservedChoice, started: Started) -> None:
        """The engine has read the prompt, and begins to answer."""

    def tokens(self, choice: ObservedChoice, event: Chunk | Finished) -> None:
        """The choice has num_new more tokens. Called for every event that brings any."""

    def finished(self, choice: ObservedChoice, finished: Finished) -> None:
        """The choice is whole."""

    def failed(self, choice: ObservedChoice, failure: RuntimeFailure) -> None:
        """The engine has not taken it in (OverCapacity), found it invalid (InvalidRequest), or could not finish it."""

    def aborted(self, choice: ObservedChoice) -> None:
        """Nobody waits for it any more."""


class Observers:
    """All observers as one, which raises nothing. One per app."""

    def __init__(self, observers: Sequence[RequestObserver] = ()) -> None:
        self._begun = [each.begun for each in observers]
        self._refused = [each.refused for each in observers]
        self._submitted = [each.submitted for each in observers]
        self._started = [each.started for each in observers]
        self._tokens = [each.tokens for each in observers]
        self._finished = [each.finished for each in observers]
        self._failed = [each.failed for each in observers]
        self._aborted = [each.aborted for each in observers]
        self._reported: set[tuple[str, str]] = set()

    def begun(self, request: ObservedRequest) -> None:
        self._notify(self._begun, request)

    def refused(self, request: ObservedRequest, error: BaseException) -> None:
        self._notify(self._refused, request, error)

    def submitted(self, request: ObservedRequest) -> None:
        self._notify(self._submitted, request)

    def started(self, choice: ObservedChoice, started: Started) -> None:
        self._notify(self._started, choice, started)

    def tokens(self, choice: ObservedChoice, event: Chunk | Finished) -> None:
        self._notify(self._tokens, choice, event)

    def finished(self, choice: ObservedChoice, finished: Finished) -> None:
        self._notify(self._finished, choice, finished)

    def failed(self, choice: ObservedChoice, failure: RuntimeFailure) -> None:
        self._notify(self._failed, choice, failure)

    def aborted(self, choice: ObservedChoice) -> None:
        self._notify(self._aborted, choice)

    def _notify(self, hooks: Sequence[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
        for hook in hooks:
            try:
                hook(*args, **kwargs)
            except Exception as error:
                self._report(hook, error)

    def _report(self, hook: Callable[..., None], error: Exception) -> None:
        """Without the error's text, which may quote a prompt."""
        kind = (hook.__qualname__, type(error).__name__)
        if kind not in self._reported:
            self._reported.add(kind)
            fields = {"observer": kind[0], "error": kind[1]}
            _log.error("an observer of requests fails; it is not logged again", exc_info=error, extra={"fields": fields})


class LogLine(RequestObserver):
    """Observes all requests of an app and fills in their `RequestRecord`. Counts are sums over a request's choices."""

    def begun(self, request: ObservedRequest) -> None:
        request.record.model = request.resolution.label
        request.record.resolution = request.resolution.reason

    def started(self, choice: ObservedChoice, started: Started) -> None:
        record = choice.request.record
        record.num_prompt_tokens += started.prompt_tokens
        record.num_cached_tokens += started.cached_tokens

    def tokens(self, choice: ObservedChoice, event: Chunk | Finished) -> None:
        record = choice.request.record
        record.num_completion_tokens += choice.num_new
        if record.first_token_s is None:
            record.first_token_s = choice.first_token_s

    def finished(self, choice: ObservedChoice, finished: Finished) -> None:
        choice.request.record.finish_reason = finished.reason.value

    def failed(self, choice: ObservedChoice, failure: RuntimeFailure) -> None:
        """What was refused has no end, but a code."""
        if not isinstance(failure, OverCapacity | InvalidRequest):
            choice.request.record.finish_reason = "error"

    def aborted(self, choice: ObservedChoice) -> None:
        choice.request.record.finish_reason = "abort"
