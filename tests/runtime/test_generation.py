"""One request's events as its reader sees them: in order, with its end, never waiting for what cannot come."""

from __future__ import annotations

import asyncio

import pytest

from runtime.pool.generation import Generation, failure_of
from runtime.protocol.errors import EngineDead, FailureKind, Field, InvalidRequest
from runtime.protocol.events import Chunk, Event, Failed, Finished, FinishReason, Timings, Usage

END = Finished(
    request=1,
    reason=FinishReason.STOP,
    usage=Usage(prompt_tokens=1, completion_tokens=1),
    timings=Timings(queue_s=0, prefill_s=0, decode_s=0),
)


def chunk(text: str) -> Chunk:
    return Chunk(1, text, [1])


class Reading:
    """A generation and a task that reads it."""

    def __init__(self) -> None:
        self.aborted: list[int] = []
        self.generation = Generation(1, self.aborted.append)
        self.events: list[Event] = []

    async def read(self) -> list[Event]:
        async for event in self.generation:
            self.events.append(event)
        return self.events


def test_events_come_in_order_and_end_with_the_last() -> None:
    async def scenario() -> None:
        reading = Reading()
        reading.generation.push(chunk("a"))
        task = asyncio.create_task(reading.read())
        await asyncio.sleep(0)
        reading.generation.push(chunk("b"))
        reading.generation.push(END)
        assert await task == [chunk("a"), chunk("b"), END]
        assert [event async for event in reading.generation] == []

    asyncio.run(scenario())


def test_a_failure_is_raised_after_what_came_before() -> None:
    async def scenario() -> None:
        reading = Reading()
        reading.generation.push(chunk("a"))
        failed = Failed(request=1, kind=FailureKind.INVALID_REQUEST, message="no", field=Field.PROMPT, code="c", retry_after_s=2.0)
        reading.generation.fail(failure_of(failed))
        with pytest.raises(InvalidRequest) as caught:
            await reading.read()
        assert reading.events == [chunk("a")]
        error = caught.value
        assert (error.message, error.field, error.code, error.retry_after_s) == ("no", "prompt", "c", 2.0)

    asyncio.run(scenario())


def test_a_failure_reaches_a_reader_that_waits() -> None:
    async def scenario() -> None:
        reading = Reading()
        task = asyncio.create_task(reading.read())
        await asyncio.sleep(0)
        reading.generation.fail(EngineDead("gone"))
        with pytest.raises(EngineDead):
            await task

    asyncio.run(scenario())


def test_an_abort_is_reported_once_and_ends_the_reader() -> None:
    async def scenario() -> None:
        reading = Reading()
        task = asyncio.create_task(reading.read())
        await asyncio.sleep(0)
        reading.generation.abort()
        reading.generation.abort()
        assert await task == []
        assert reading.aborted == [1]

    asyncio.run(scenario())


def test_nothing_follows_the_end() -> None:
    async def scenario() -> None:
        reading = Reading()
        reading.generation.push(END)
        reading.generation.fail(EngineDead("gone"))
        reading.generation.abort()
        assert await reading.read() == [END]
        assert reading.aborted == []

    asyncio.run(scenario())


def test_a_reader_that_gave_up_leaves_the_events_for_the_next() -> None:
    async def scenario() -> None:
        reading = Reading()
        task = asyncio.create_task(reading.read())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        reading.generation.push(chunk("a"))
        reading.generation.push(END)
        assert await reading.read() == [chunk("a"), END]

    asyncio.run(scenario())
