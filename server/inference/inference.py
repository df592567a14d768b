"""One request's work in an engine: its lease and its generations, as one stream of events.

Knows nothing of wire formats: dialects render what they read here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runtime.pool.lease import Lease
from runtime.protocol.errors import NotReady, RuntimeFailure, StepFailed
from runtime.protocol.events import Chunk, Finished, Started, TokenLogprob, Usage
from runtime.text.formats.reader import AnswerParser
from server.inference.answer_parts import AnswerParsing, AnswerParts, parts_of
from server.inference.observed_generation import ObservedGeneration
from server.inference.resolution import Resolution

STALL_S = 1.0  # a reader that reads nothing for so long has stalled


class Indexed(NamedTuple):
    """An event of the choice with this index. A named tuple because one is made per token."""

    choice: int
    event: Chunk | Finished


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete choice. token_ids, logprobs: of its text; logprobs is None unless requested."""

    text: str
    parts: AnswerParts
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None
    started: Started
    finished: Finished

    @property
    def prompt_text(self) -> str:
        """Empty unless it was requested."""
        return self.started.prompt_text or ""


class Inference(AsyncIterator[Indexed]):
    """Owns a lease and what was submitted on it. `await begin()`, iterate to the end, and `close()` in any case.

    Ends after every choice has Finished, or after close(). Raises the RuntimeFailure of the first generation that
    fails, and StepFailed when one ends early; either closes it.
    The lease is released when the last generation ends, however slowly its events are then read: behind a reader
    that stalls for stall_s, events are read ahead.
    time_limit_s: after it the inference closes and fails; for engines that hang, since an engine that steps ends late requests
    itself. parsing: of all answers; None: they are plain text.
    """

    def __init__(
        self,
        resolution: Resolution,
        lease: Lease,
        generations: Sequence[ObservedGeneration],
        time_limit_s: float | None = None,
        stall_s: float = STALL_S,
        parsing: AnswerParsing | None = None,
    ) -> None:
        self.resolution = resolution
        self._parsing = parsing
        self._lease: Lease | None = lease
        self._generations = generations
        self._events: AsyncIterator[Indexed] = _Single(generations[0]) if len(generations) == 1 else self._read_ahead()
        self._held: Indexed | None = None
        self._num_open = len(generations)
        self._is_closed = False
        self._is_waiting = False
        self._has_read = False
        self._failure: RuntimeFailure | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        if time_limit_s is not None:
            self._timer = self._loop.call_later(time_limit_s, self._fail_late, time_limit_s)
        if isinstance(self._events, _Single):
            self._stall_timer = self._loop.call_later(stall_s, self._watch_reader, stall_s)

    async def begin(self) -> None:
        """Waits for the first event, so that a request that fails early fails before its answer begins."""
        self._held = await anext(self)

    async def __anext__(self) -> Indexed:
        held = self._held
        if held is not None:
            self._held = None
            return held
        self._is_waiting = self._has_read = True
        try:
            indexed = await anext(self._events)
        except StopAsyncIteration:
            failure, self._failure = self._failure, None
            if failure is None and self._num_open and not self._is_closed:
                failure = StepFailed("The generation ended without a result; send the request again.")
            self.close()
            if failure is not None:
                raise failure from None
            raise
        except RuntimeFailure:
            self.close()
            raise
        finally:
            self._is_waiting = False
        if isinstance(indexed.event, Finished):
            self._num_open -= 1
            if self._num_open == 0:
                self._release()
        return indexed

    async def answers(self) -> list[Answer]:
        """All choices in order of their index."""
        events: list[list[Chunk | Finished]] = [[] for _ in self._generations]
        async for choice, event in self:
            events[choice].append(event)
        return [self._answer(choice, of_choice) for choice, of_choice in enumerate(events)]

    def _answer(self, choice: int, events: Sequence[Chunk | Finished]) -> Answer:
        finished = events[-1]
        assert isinstance(finished, Finished)  # or the iteration would have failed
        text = "".join(event.text for event in events)
        return Answer(
            text=text,
            parts=parts_of(text, self.parser(choice)),
            token_ids=[token for event in events for token in event.token_ids],
            logprobs=joined_logprobs(events),
            started=self.started(choice),
            finished=finished,
        )

    def started(self, choice: int) -> Started:
        """Known with the choice's first event."""
        started = self._generations[choice].started
        assert started is not None, "the choice has not begun"
        return started

    def parser(self, choice: int) -> AnswerParser | None:
        """A new one for this choice, once it has begun; None: its text is content as it is."""
        return None if self._parsing is None else self._parsing.parser(self.started(choice))

    def close(self) -> None:
        """Aborts what still runs and gives the lease back. May be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        for generation in self._generations:
            generation.abort()
        if isinstance(self._events, _Interleaved):
            self._events.close()
        self._release()

    def _release(self) -> None:
        """Releases the lease and timers once no generation runs any more. May be called again."""
        for timer in (self._timer, self._stall_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._stall_timer = None
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _watch_reader(self, stall_s: float) -> None:
        if self._is_waiting or self._has_read:
            self._has_read = False
            self._stall_timer = self._loop.call_later(stall_s, self._watch_reader, stall_s)
        else:
            self._events = self._read_ahead()

    def _read_ahead(self) -> _Interleaved:
        return _Interleaved(self._generations, self._release)

    def _fail_late(self, time_limit_s: float) -> None:
        self._failure = NotReady(
            f"{self.resolution.label} has not answered for {time_limit_s:g} s: its engine hangs. Unload the model "
            f"(`slmops stop {self.resolution.label}`) and retry; it is loaded again.",
            code="deadline_exceeded",
            retry_after_s=1.0,
        )
        for generation in self._generations:
            generation.give_up(self._failure)
        self.close()


def total(usages: Sequence[Usage], num_choices: int = 1) -> Usage:
    """The sum over the choices of one request, in their order. num_choices: per prompt, which counts once."""
    firsts = usages[::num_choices]
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in firsts),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in firsts),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        accepted_prediction_tokens=sum(usage.accepted_prediction_tokens for usage in usages),
        rejected_prediction_tokens=sum(usage.rejected_prediction_tokens for usage in usages),
    )


def joined_logprobs(events: Sequence[Chunk | Finished]) -> list[TokenLogprob] | None:
    """The log probabilities of all tokens of these events; None when they have none."""
    present = [event.logprobs for event in events if event.logprobs is not None]
    return [logprob for logprobs in present for logprob in logprobs] if present else None


class _Single(AsyncIterator[Indexed]):
    """A single generation, read without a queue in between."""

    def __init__(self, generation: ObservedGeneration) -> None:
        self._generation = generation

    async def __anext__(self) -> Indexed:
        return Indexed(0, await anext(self._generation))


class _Interleaved(AsyncIterator[Indexed]):
    """Events of generations as they come, whether or not they are read; one task per generation.

    One that fails aborts the others. on_end: called when the last has ended.
    """

    def __init__(self, generations: Sequence[ObservedGeneration], on_end: Callable[[], None]) -> None:
        self._generations = generations
        self._on_end = on_end
        self._num_unended = len(generations)
        self._arrived: asyncio.Queue[Indexed | RuntimeFailure | None] = asyncio.Queue()
        self._num_running = len(generations)
        self._tasks = [asyncio.create_task(self._forward(i, each)) for i, each in enumerate(generations)]

    async def __anext__(self) -> Indexed:
        while self._num_running > 0:
            item = await self._arrived.get()
            if isinstance(item, Indexed):
                return item
            if item is not None:
                raise item
            self._num_running -= 1
        raise StopAsyncIteration

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._num_running = 0
        self._arrived.put_nowait(None)

    async def _forward(self, index: int, generation: ObservedGeneration) -> None:
        try:
            async for event in generation:
                self._arrived.put_nowait(Indexed(index, event))
        except RuntimeFailure as failure:
            self._arrived.put_nowait(failure)
            for each in self._generations:
                each.abort()
        finally:
            self._arrived.put_nowait(None)
            self._num_unended -= 1
            if self._num_unended == 0:
                self._on_end()
