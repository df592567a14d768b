"""A generation that is observed: events pass through to its reader, and observers hear of each.

Started is kept aside, so that readers see Chunks and the Finished only. Knows no metrics and no log.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from runtime.pool.generation import Generation
from runtime.protocol.errors import RuntimeFailure
from runtime.protocol.events import Chunk, Finished, Started
from server.inference.observers import ObservedChoice, Observers


class ObservedGeneration(AsyncIterator[Chunk | Finished]):
    """One choice of a request. Iterating raises the RuntimeFailure that ended it; it just ends after abort()."""

    def __init__(self, source: Generation, choice: ObservedChoice, observers: Observers) -> None:
        self.started: Started | None = None
        self._source = source
        self._choice = choice
        self._observers = observers
        self._last_token_at = 0.0
        self._is_over = False

    async def __anext__(self) -> Chunk | Finished:
        try:
            event = await anext(self._source)
            if isinstance(event, Started):
                self.started = event
                self._observers.started(self._choice, event)
                event = await anext(self._source)
        except RuntimeFailure as failure:
            self._fail(failure)
            raise
        except StopAsyncIteration:
            self._abort_once()
            raise
        if isinstance(event, Chunk):
            self._count(event, len(event.token_ids))
            return event
        assert isinstance(event, Finished)  # a Failed is raised by its source, and Started comes once
        self._count(event, event.usage.completion_tokens - self._choice.num_tokens)
        if not self._is_over:
            self._is_over = True
            self._observers.finished(self._choice, event)
        return event

    def abort(self) -> None:
        """Stops the sequence; no-op when it is over."""
        self._source.abort()
        self._abort_once()

    def give_up(self, failure: RuntimeFailure) -> None:
        """Stops the sequence as one that failed; no-op when it is over."""
        self._source.abort()
        self._fail(failure)

    def _count(self, event: Chunk | Finished, num_new: int) -> None:
        if num_new <= 0:
            return
        now, choice = time.perf_counter(), self._choice
        if choice.num_tokens == 0:
            choice.first_token_s = now - choice.request.record.arrived
        else:
            choice.gap_s = now - self._last_token_at
        self._last_token_at = now
        choice.num_new = num_new
        choice.num_tokens += num_new
        self._observers.tokens(choice, event)

    def _fail(self, failure: RuntimeFailure) -> None:
        if not self._is_over:
            self._is_over = True
            self._observers.failed(self._choice, failure)

    def _abort_once(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._observers.aborted(self._choice)
