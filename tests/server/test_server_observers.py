"""Who hears of a request's life: in which order, how it ends, and that an observer which fails harms nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from runtime.protocol.errors import InvalidRequest, NotReady, OverCapacity, RuntimeFailure
from runtime.protocol.events import Chunk, Event, Finished, FinishReason, Started, Timings, Usage
from runtime.protocol.request import SamplingParams, TextPrompt
from server.http.request_record import RequestRecord
from server.inference.gateway import Gateway
from server.inference.observed_generation import ObservedGeneration
from server.inference.observers import LogLine, ObservedChoice, ObservedRequest, Observers, RequestObserver
from server.inference.request import InferenceRequest
from server.inference.resolution import Resolution, ServedModel
from server.inference.served_models import FakeModels
from server.metrics.requests import RequestMetrics
from server.metrics.series import Metrics
from server.principal import LOCAL
from server.settings.daemon import Settings

RESOLUTION = Resolution("m", ServedModel("m:1", 0), "test")
REQUEST = InferenceRequest((TextPrompt(text="a"),), SamplingParams(max_tokens=7))
STARTED = Started(request=1, prompt_tokens=5, cached_tokens=2)
END = Finished(
    request=1,
    reason=FinishReason.STOP,
    usage=Usage(prompt_tokens=5, completion_tokens=3, cached_tokens=2),
    timings=Timings(queue_s=0.1, prefill_s=0.2, decode_s=0.3),
)


class Recorder(RequestObserver):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def begun(self, request: ObservedRequest) -> None:
        self.heard.append(f"begun {request.resolution.label}")

    def refused(self, request: ObservedRequest, error: BaseException) -> None:
        self.heard.append(f"refused {type(error).__name__}")

    def submitted(self, request: ObservedRequest) -> None:
        self.heard.append("submitted")

    def started(self, choice: ObservedChoice, started: Started) -> None:
        self.heard.append(f"started {started.prompt_tokens}")

    def tokens(self, choice: ObservedChoice, event: Chunk | Finished) -> None:
        assert (choice.gap_s is None) == (choice.num_tokens == choice.num_new)
        self.heard.append(f"tokens {choice.num_new} of {choice.num_tokens}")

    def finished(self, choice: ObservedChoice, finished: Finished) -> None:
        self.heard.append(f"finished {finished.reason}")

    def failed(self, choice: ObservedChoice, failure: RuntimeFailure) -> None:
        self.heard.append(f"failed {type(failure).__name__}")

    def aborted(self, choice: ObservedChoice) -> None:
        self.heard.append("aborted")


class Broken(RequestObserver):
    """Fails at whatever it hears of tokens."""

    def tokens(self, choice: ObservedChoice, event: Chunk | Finished) -> None:
        raise KeyError("the text of a prompt")


class Script:
    def __init__(self, *events: Event, failure: RuntimeFailure | None = None) -> None:
        self._events = list(events)
        self._failure = failure

    def abort(self) -> None:
        self._events.clear()

    async def __anext__(self) -> Event:
        if self._events:
            return self._events.pop(0)
        raise self._failure or StopAsyncIteration


def observed(observers: Observers, *events: Event, failure: RuntimeFailure | None = None) -> ObservedGeneration:
    choice = ObservedChoice(ObservedRequest(RESOLUTION, REQUEST, RequestRecord("r")))
    source: Any = Script(*events, failure=failure)
    return ObservedGeneration(source, choice, observers)


async def read(generation: ObservedGeneration) -> list[str]:
    return [event.text async for event in generation]


def test_a_choice_is_heard_from_its_start_to_its_end() -> None:
    recorder = Recorder()
    generation = observed(Observers([recorder]), STARTED, Chunk(1, "a", [1]), Chunk(1, "", []), END)
    asyncio.run(read(generation))
    generation.abort()
    assert recorder.heard == ["started 5", "tokens 1 of 1", "tokens 2 of 3", "finished stop"]


@pytest.mark.parametrize(
    ("end", "heard"),
    [
        (lambda generation: generation.abort(), "aborted"),
        (lambda generation: generation.give_up(NotReady("late")), "failed NotReady"),
    ],
)
def test_a_choice_ends_once(end: Callable[[ObservedGeneration], None], heard: str) -> None:
    recorder = Recorder()
    generation = observed(Observers([recorder]), STARTED)
    for _ in range(2):
        end(generation)
    generation.abort()
    assert asyncio.run(read(generation)) == []
    assert recorder.heard == [heard]


@pytest.mark.parametrize(("failure", "ended"), [(OverCapacity("x"), None), (InvalidRequest("x"), None), (NotReady("x"), "error")])
def test_what_was_refused_did_not_end(failure: RuntimeFailure, ended: str | None) -> None:
    metrics, request = Metrics(SimpleNamespace(loaded=lambda: ())), ObservedRequest(RESOLUTION, REQUEST, RequestRecord("r"))
    observers = Observers([RequestMetrics(metrics), LogLine()])
    observers.begun(request)
    observers.failed(ObservedChoice(request), failure)
    series = {"model_name": "m", "engine": "1"}
    assert request.record.finish_reason == ended
    failed = metrics.registry.get_sample_value("vllm:request_success_total", {**series, "finished_reason": "error"})
    assert failed == (0 if ended is None else 1)
    rejected = metrics.registry.get_sample_value("vllm:admission_rejections_total", {**series, "reason": "queue_full"})
    assert rejected == isinstance(failure, OverCapacity)


def test_an_observer_that_fails_breaks_nothing_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    observers = Observers([Broken(), recorder])
    with caplog.at_level(logging.ERROR, "slmops.observers"):
        for _ in range(2):
            assert asyncio.run(read(observed(observers, STARTED, Chunk(1, "a", [1]), END))) == ["a", ""]
    assert recorder.heard == 2 * ["started 5", "tokens 1 of 1", "tokens 2 of 3", "finished stop"]
    (line,) = caplog.records
    assert line.__dict__["fields"] == {"observer": "Broken.tokens", "error": "KeyError"}


def test_a_request_without_a_model_is_begun_and_refused(make_settings: Callable[..., Settings]) -> None:
    recorder = Recorder()

    async def acquire(*_: object, **__: object) -> object:
        raise NotReady("no room", code="insufficient_memory")

    pool: Any = SimpleNamespace(spec_of=lambda _: object(), acquire=acquire)
    plans: Any = None
    gateway = Gateway(make_settings(model="m"), FakeModels(["m"]), pool, plans, Observers([recorder]))

    async def run() -> None:
        resolution = await gateway.resolve(None)
        assert (resolution.name, resolution.label, resolution.principal) == ("m", "m:1", LOCAL)
        with pytest.raises(NotReady):
            await gateway.infer(resolution, REQUEST, RequestRecord("r"))
        assert gateway.load_refusal("m:1") is not None

    asyncio.run(run())
    assert recorder.heard == ["begun m:1", "refused NotReady"]
