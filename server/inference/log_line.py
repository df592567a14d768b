"""What a request's line in the log says of its inference: model, tokens, the time to the first, and how it ended."""

from __future__ import annotations

from runtime.protocol.errors import InvalidRequest, OverCapacity, RuntimeFailure
from runtime.protocol.events import Chunk, Finished, Started
from server.inference.observers import ObservedChoice, ObservedRequest, RequestObserver


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
