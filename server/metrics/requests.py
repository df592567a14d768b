"""What metrics hear of requests: tokens, gaps and times, by model. Refusals have counts of their own, by status and reason."""

from __future__ import annotations

import time

from runtime.protocol.errors import InvalidRequest, OverCapacity, RuntimeFailure
from runtime.protocol.events import Chunk, Finished, Started
from server.inference.observers import ObservedChoice, ObservedRequest, RequestObserver
from server.metrics.series import Metrics, ModelMetrics


class RequestMetrics(RequestObserver):
    """Observes all requests of an app for its metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def begun(self, request: ObservedRequest) -> None:
        self._series(request)  # they exist, at zero, also if the model cannot be loaded

    def submitted(self, request: ObservedRequest) -> None:
        series, params = self._series(request), request.request.params
        series.request_params_n.observe(request.request.num_choices)
        if params.max_tokens is not None:
            series.request_params_max_tokens.observe(params.max_tokens)

    def started(self, choice: ObservedChoice, started: Started) -> None:
        series = self._series(choice.request)
        series.prompt_tokens.inc(started.prompt_tokens)
        series.prompt_tokens_cached.inc(started.cached_tokens)

    def tokens(self, choice: ObservedChoice, event: Chunk | Finished) -> None:
        series = self._series(choice.request)
        if choice.gap_s is not None:
            series.inter_token_latency.observe(choice.gap_s)
        elif choice.first_token_s is not None:
            series.time_to_first_token.observe(choice.first_token_s)
        series.generation_tokens.inc(choice.num_new)

    def finished(self, choice: ObservedChoice, finished: Finished) -> None:
        self._end(choice, finished.reason.value)
        series, usage, timings = self._series(choice.request), finished.usage, finished.timings
        series.queue_time.observe(timings.queue_s)
        series.prefill_time.observe(timings.prefill_s)
        series.decode_time.observe(timings.decode_s)
        series.inference_time.observe(timings.prefill_s + timings.decode_s)
        if choice.num_tokens > 1:
            series.time_per_output_token.observe(timings.decode_s / (choice.num_tokens - 1))
        series.request_prompt_tokens.observe(usage.prompt_tokens)
        series.request_generation_tokens.observe(usage.completion_tokens)
        series.request_max_generation_tokens.observe(usage.completion_tokens)

    def failed(self, choice: ObservedChoice, failure: RuntimeFailure) -> None:
        """What was never taken in is no request that ended."""
        if isinstance(failure, OverCapacity):
            self._series(choice.request).admission_rejections["queue_full"].inc()
        elif not isinstance(failure, InvalidRequest):
            self._end(choice, "error")

    def aborted(self, choice: ObservedChoice) -> None:
        self._end(choice, "abort")

    def _end(self, choice: ObservedChoice, reason: str) -> None:
        series = self._series(choice.request)
        series.request_success[reason].inc()
        series.e2e_latency.observe(time.perf_counter() - choice.request.record.arrived)

    def _series(self, request: ObservedRequest) -> ModelMetrics:
        return self._metrics.of_model(request.resolution.label)
