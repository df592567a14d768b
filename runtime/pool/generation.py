"""The events of one request, and answers to questions of the tokenizer, as the gateway waits for them. Knows no process."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from runtime.protocol.errors import BY_KIND, RuntimeFailure
from runtime.protocol.events import Event, Failed, Finished
from runtime.protocol.messages import Detokenize, Detokenized, Tokenize, Tokenized


class Generation(AsyncIterator[Event]):
    """Started, Chunk..., then Finished, the last. A failure is raised as its RuntimeFailure. One reader.

    number: the request's number with its worker. on_abort(number) stops the row; it is called at most once.
    """

    def __init__(self, number: int, on_abort: Callable[[int], None]) -> None:
        self.number = number
        self._on_abort = on_abort
        self._events: deque[Event] = deque()
        self._failure: RuntimeFailure | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._ended = True
        self._events.append(event)
        self._wake()

    def fail(self, failure: RuntimeFailure) -> None:
        """What was pushed before is still read first."""
        if not self._ended:
            self._ended = True
            self._failure = failure
            self._wake()

    def abort(self) -> None:
        """Stops the row within one engine step; nothing when it has ended. Iterating afterwards ends."""
        if not self._ended:
            self._ended = True
            self._on_abort(self.number)
            self._wake()

    async def __anext__(self) -> Event:
        while not self._events:
            if self._ended:
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def failure_of(failed: Failed) -> RuntimeFailure:
    """The exception for a worker's failure message."""
    kind = BY_KIND[failed.kind]
    return kind(failed.message, field=failed.field, code=failed.code, retry_after_s=failed.retry_after_s)


Inquiry = Tokenize | Detokenize
Answer = Tokenized | Detokenized


class Inquiries:
    """The unanswered inquiries of one worker, by their numbers. Answers to others are ignored: their callers have left."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Future[Answer]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def answer(self, number: int) -> Answer:
        """Waits for it. Raises the RuntimeFailure that it was settled with."""
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open[number] = waiting
        try:
            return await waiting
        finally:
            self._open.pop(number, None)

    def settle(self, answer: Answer) -> None:
        waiting = self._open.pop(answer.request, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def fail(self, number: int, failure: RuntimeFailure) -> None:
        waiting = self._open.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(failure)

    def fail_all(self, failure: RuntimeFailure) -> None:
        for number in list(self._open):
            self.fail(number, failure)
