"""A generation that counts itself: events pass through; tokens, gaps and outcomes go to the metrics and the log.

Knows nothing of wire formats. Started is kept aside, so that consumers see Chunks and the Finished only.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from runtime.errors import InvalidRequest, OverCapacity, RuntimeFailure
from runtime.events import Chunk, Finished, Started, Timings
from runtime.generation import Generation
from server.metrics import ModelMetrics
from server.request_record import RequestRecord


class MeteredGeneration(AsyncIterator[Chunk | Finished]):
    """One sequence of a request. Iterating raises the RuntimeFailure that ended it; it just ends after abort()."""

    def __init__(self, source: Generation, series: ModelMetrics, record: RequestRecord) -> None:
        self.started: Started | None = None
        self._source = source
        self._series = series
        self._record = record
        self._num_tokens = 0
        self._last_token_at = 0.0
        self._is_over = False

    async def __anext__(self) -> Chunk | Finished:
        try:
            event = await anext(self._source)
            if isinstance(event, Started):
                self._on_started(event)
                event = await anext(self._source)
        except RuntimeFailure as failure:
            self._on_failure(failure)
            raise
        except StopAsyncIteration:
            self._on_end("abort")
            raise
        if isinstance(event, Chunk):
            self._on_tokens(len(event.token_ids))
            return event
        assert isinstance(event, Finished)  # a Failed is raised by its source, and Started comes once
        self._on_finished(event)
        return event

    def abort(self) -> None:
        """Stops the sequence; no-op when it is over."""
        self._source.abort()
        self._on_end("abort")

    def give_up(self) -> None:
        """Stops the sequence and counts it as failed; no-op when it is over."""
        self._source.abort()
        self._on_end("error")

    def _on_started(self, started: Started) -> None:
        self.started = started
        self._series.prompt_tokens.inc(started.prompt_tokens)
        self._series.prompt_tokens_cached.inc(started.cached_tokens)
        self._record.num_prompt_tokens += started.prompt_tokens
        self._record.num_cached_tokens += started.cached_tokens

    def _on_tokens(self, num_tokens: int) -> None:
        if num_tokens == 0:
            return
        now = time.perf_counter()
        if self._num_tokens == 0:
            first_token_s = now - self._record.arrived
            self._series.time_to_first_token.observe(first_token_s)
            self._record.first_token_s = self._record.first_token_s or first_token_s
        else:
            self._series.inter_token_latency.observe(now - self._last_token_at)
        self._last_token_at = now
        self._num_tokens += num_tokens
        self._series.generation_tokens.inc(num_tokens)
        self._record.num_completion_tokens += num_tokens

    def _on_finished(self, finished: Finished) -> None:
        self._on_tokens(max(0, finished.usage.completion_tokens - self._num_tokens))
        self._on_end(finished.reason.value)
        self._on_timings(finished.timings)
        self._series.request_prompt_tokens.observe(finished.usage.prompt_tokens)
        self._series.request_generation_tokens.observe(finished.usage.completion_tokens)
        self._series.request_max_generation_tokens.observe(finished.usage.completion_tokens)

    def _on_timings(self, timings: Timings) -> None:
        self._series.queue_time.observe(timings.queue_s)
        self._series.prefill_time.observe(timings.prefill_s)
        self._series.decode_time.observe(timings.decode_s)
        self._series.inference_time.observe(timings.prefill_s + timings.decode_s)
        if self._num_tokens > 1:
            self._series.time_per_output_token.observe(timings.decode_s / (self._num_tokens - 1))

    def _on_failure(self, failure: RuntimeFailure) -> None:
        """What was never taken in is no request that ended: refusals have counts of their own, by status and by reason."""
        if isinstance(failure, OverCapacity) and not self._is_over:
            self._series.admission_rejections["queue_full"].inc()
        if isinstance(failure, OverCapacity | InvalidRequest):
            self._is_over = True
        self._on_end("error")

    def _on_end(self, reason: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._record.finish_reason = reason
        self._series.request_success[reason].inc()
        self._series.e2e_latency.observe(time.perf_counter() - self._record.arrived)
