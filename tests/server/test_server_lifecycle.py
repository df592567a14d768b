"""The daemon's phases, and observed generations and inferences on scripted events: no worker, no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from runtime.pool.generation import Generation
from runtime.protocol.errors import NotReady, RuntimeFailure, StepFailed
from runtime.protocol.events import Chunk, Event, Finished, FinishReason, Started, Timings, Usage
from runtime.protocol.request import SamplingParams
from server.http.disconnection import ClientGone, unless_disconnected
from server.http.request_record import RequestRecord
from server.inference.inference import Inference
from server.inference.lifecycle import Lifecycle, Phase
from server.inference.observed_generation import ObservedGeneration
from server.inference.observers import LogLine, ObservedChoice, ObservedRequest, Observers
from server.inference.request import InferenceRequest
from server.inference.resolution import Resolution, ServedModel
from server.metrics.requests import RequestMetrics
from server.metrics.series import Metrics

pytestmark = pytest.mark.unit


class Script(AsyncIterator[Event]):
    """A generation that plays these events, then ends, or fails."""

    def __init__(self, *events: Event, failure: RuntimeFailure | None = None) -> None:
        self._events = list(events)
        self._failure = failure
        self.num_aborts = 0

    def abort(self) -> None:
        self.num_aborts += 1
        self._events.clear()

    async def __anext__(self) -> Event:
        if self._events:
            return self._events.pop(0)
        if self._failure is not None:
            raise self._failure
        raise StopAsyncIteration


class EmptyPool:
    def loaded(self) -> tuple[()]:
        return ()


class CountedLease:
    def __init__(self) -> None:
        self.num_releases = 0

        self.released = asyncio.Event()

    def release(self) -> None:
        self.num_releases += 1
        self.released.set()


RESOLUTION = Resolution("m", ServedModel("m:1", 0), "test")
STARTED = Started(request=1, prompt_tokens=5, cached_tokens=2, prompt_text="prompt")
TIMINGS = Timings(queue_s=0.1, prefill_s=0.2, decode_s=0.3)


def end(text: str = "", completion_tokens: int = 3) -> Finished:
    usage = Usage(prompt_tokens=5, completion_tokens=completion_tokens, cached_tokens=2)
    return Finished(request=1, reason=FinishReason.STOP, usage=usage, timings=TIMINGS, text=text)


class Bench:
    """An inference of scripts, with what it counts."""

    def __init__(self, *scripts: Script | Generation) -> None:
        self.metrics = Metrics(EmptyPool())
        self.record = RequestRecord("r")
        self.lease = CountedLease()
        self._scripts = scripts

    def inference(self, time_limit_s: float | None = None, stall_s: float = 60) -> Inference:
        request = ObservedRequest(RESOLUTION, InferenceRequest((), SamplingParams()), self.record)
        observers = Observers([RequestMetrics(self.metrics), LogLine()])
        observers.begun(request)
        observers.submitted(request)
        generations = [ObservedGeneration(each, ObservedChoice(request, i), observers) for i, each in enumerate(self._scripts)]
        return Inference(RESOLUTION, self.lease, generations, time_limit_s, stall_s)

    def value(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(name, {"model_name": "m", "engine": "1", **labels})
        assert found is not None, name
        return found


def test_answers_are_whole_and_counted() -> None:
    bench = Bench(Script(STARTED, Chunk(1, "a", [1]), Chunk(1, "", [2]), end("b")))

    async def run() -> None:
        inference = bench.inference()
        await inference.begin()
        (answer,) = await inference.answers()
        assert (answer.text, answer.prompt_text) == ("ab", "prompt")
        inference.close()
        inference.close()

    asyncio.run(run())
    assert bench.lease.num_releases == 1
    assert (bench.record.num_prompt_tokens, bench.record.num_cached_tokens, bench.record.num_completion_tokens) == (5, 2, 3)
    assert bench.value("vllm:generation_tokens_total") == 3
    assert bench.value("vllm:inter_token_latency_seconds_count") == 2
    assert bench.value("vllm:request_queue_time_seconds_sum") == pytest.approx(0.1)
    assert bench.value("vllm:request_inference_time_seconds_sum") == pytest.approx(0.5)
    assert bench.value("vllm:request_success_total", finished_reason="stop") == 1
    assert bench.value("vllm:request_success_total", finished_reason="abort") == 0


def test_an_answer_of_one_token_has_no_gap() -> None:
    bench = Bench(Script(STARTED, end(completion_tokens=1)))
    asyncio.run(_all(bench))
    assert bench.value("vllm:time_to_first_token_seconds_count") == 1
    assert bench.value("vllm:inter_token_latency_seconds_count") == 0
    assert bench.value("vllm:request_time_per_output_token_seconds_count") == 0


async def _all(bench: Bench) -> list[str]:
    inference = bench.inference()
    try:
        await inference.begin()
        return [answer.text for answer in await inference.answers()]
    finally:
        inference.close()


def test_many_choices_keep_their_places() -> None:
    bench = Bench(*(Script(STARTED, Chunk(1, f"{i}", [1]), end("!")) for i in range(5)))
    assert asyncio.run(_all(bench)) == [f"{i}!" for i in range(5)]


def test_one_choice_that_fails_ends_them_all() -> None:
    endless = Script(STARTED, *(Chunk(1, "x", [1]) for _ in range(100)))
    bench = Bench(endless, Script(STARTED, failure=NotReady("gone")))
    with pytest.raises(NotReady, match="gone"):
        asyncio.run(_all(bench))
    assert endless.num_aborts
    assert bench.lease.num_releases == 1
    assert bench.value("vllm:request_success_total", finished_reason="error") == 1


@pytest.mark.parametrize("num_choices", [1, 2])
def test_an_engine_that_hangs_ends_the_request_at_its_time_limit(num_choices: int) -> None:
    bench = Bench(*(Generation(number, lambda _: None) for number in range(num_choices)))

    async def run() -> None:
        inference = bench.inference(time_limit_s=0.01)
        try:
            await inference.begin()
        finally:
            inference.close()

    with pytest.raises(NotReady, match="slmops stop m:1") as late:
        asyncio.run(run())
    assert late.value.code == "deadline_exceeded"
    assert bench.lease.num_releases == 1
    assert bench.value("vllm:request_success_total", finished_reason="error") >= 1


@pytest.mark.parametrize("num_choices", [1, 2])
@pytest.mark.parametrize("fails", [False, True])
def test_a_reader_that_stalls_holds_no_lease_after_the_end(num_choices: int, fails: bool) -> None:
    generations = [Generation(number, lambda _: None) for number in range(num_choices)]
    bench = Bench(*generations)

    async def run() -> str:
        inference = bench.inference(stall_s=0.001)
        generations[0].push(Chunk(1, "a", [1]))
        await inference.begin()
        for generation in generations:
            generation.push(Chunk(1, "b", [2]))
            if fails:
                generation.fail(NotReady("late"))
            else:
                generation.push(end("c"))
        async with asyncio.timeout(10):
            await bench.lease.released.wait()  # nobody reads meanwhile
        text = "".join([event.text async for _, event in inference])
        inference.close()
        return text

    if fails:
        with pytest.raises(NotReady, match="late"):
            asyncio.run(run())
    else:
        assert sorted(asyncio.run(run())) == sorted("a" + "bc" * num_choices)
    assert bench.lease.num_releases == 1


def test_the_lease_is_given_back_once_the_end_is_read_even_before_it_is_sent() -> None:
    bench = Bench(Script(STARTED, end("a")))

    async def run() -> None:
        inference = bench.inference()
        await anext(inference)
        assert bench.lease.num_releases == 1
        inference.close()

    asyncio.run(run())
    assert bench.lease.num_releases == 1


@pytest.mark.parametrize("num_choices", [1, 2])
def test_a_late_request_that_nobody_reads_is_aborted_and_releases_its_lease(num_choices: int) -> None:
    aborted: list[int] = []
    bench = Bench(*(Generation(number, aborted.append) for number in range(num_choices)))

    async def run() -> None:
        inference = bench.inference(time_limit_s=0.01)
        async with asyncio.timeout(10):
            await bench.lease.released.wait()
        assert aborted == list(range(num_choices))
        with pytest.raises(NotReady, match="hangs"):
            await anext(inference)
        inference.close()

    asyncio.run(run())
    assert bench.lease.num_releases == 1
    assert bench.value("vllm:request_success_total", finished_reason="error") == num_choices


@pytest.mark.parametrize("num_choices", [1, 2])
def test_a_generation_that_just_stops_is_a_failure(num_choices: int) -> None:
    with pytest.raises(StepFailed, match="ended without a result"):
        asyncio.run(_all(Bench(*(Script(STARTED, Chunk(1, "a", [1])) for _ in range(num_choices)))))


@pytest.mark.parametrize("num_choices", [1, 3])
def test_a_closed_inference_ends_quietly(num_choices: int) -> None:
    scripts = [Script(STARTED, Chunk(1, "a", [1]), Chunk(1, "b", [2]), end()) for _ in range(num_choices)]
    bench = Bench(*scripts)

    async def run() -> None:
        inference = bench.inference()
        await inference.begin()
        await anext(inference)
        inference.close()
        assert [event async for event in inference] in ([], [event async for event in inference])

    asyncio.run(run())
    assert [script.num_aborts for script in scripts] == [1] * num_choices


def test_phases_go_one_way() -> None:
    lifecycle = Lifecycle()
    assert lifecycle.is_serving
    lifecycle.drain()
    assert lifecycle.phase is Phase.DRAINING
    lifecycle.close()
    lifecycle.drain()
    assert lifecycle.phase is Phase.CLOSED


def test_idle_is_when_the_last_request_ends() -> None:
    async def run() -> None:
        lifecycle = Lifecycle()
        assert await lifecycle.wait_idle(0.1)
        lifecycle.request_begins()
        lifecycle.request_begins()
        lifecycle.request_ends()
        assert not await lifecycle.wait_idle(0)
        waiting = asyncio.ensure_future(lifecycle.wait_idle(10))
        lifecycle.request_ends()
        assert await waiting

    asyncio.run(run())


def test_work_for_a_client_that_leaves_is_cancelled() -> None:
    cancelled = []

    async def run() -> None:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        async def leave() -> dict[str, str]:
            return {"type": "http.disconnect"}

        with pytest.raises(ClientGone):
            await unless_disconnected(leave, forever())

    asyncio.run(run())
    assert cancelled == [True]
