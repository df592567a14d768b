"""Drives an engine step by step, under a clock that the test turns, and gathers what it reports of each request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runtime.batching.engine import BatchingEngine
from runtime.engines.fake import build_fake_engine
from runtime.protocol.events import Failed, Finished, Started, TokenLogprob
from runtime.protocol.messages import EngineOptions, StepReport, Submit
from runtime.protocol.request import ChatPrompt, Prompt, SamplingParams, TextPrompt

MOST_STEPS = 20_000


class Clock:
    """Stands still, or moves by `tick` at each look."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now = 1000.0
        self._tick = tick

    def __call__(self) -> float:
        self.now += self._tick
        return self.now


@dataclass
class Outcome:
    """All events of one request."""

    started: Started | None = None
    pieces: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None
    failed: Failed | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def end(self) -> Finished:
        assert self.finished is not None, self.failed
        return self.finished


class EngineBench:
    def __init__(self, engine: BatchingEngine, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self.outcomes: dict[int, Outcome] = {}

    def submit(
        self,
        prompt: Prompt | str,
        *,
        priority: int = 0,
        principal: str = "",
        group: int | None = None,
        deadline_s: float | None = None,
        **params: Any,
    ) -> int:
        """A text stands for a chat message of the user. What is refused at once has its outcome too."""
        if isinstance(prompt, str):
            prompt = ChatPrompt(messages=[{"role": "user", "content": prompt}])
        number = len(self.outcomes) + 1
        requested = SamplingParams(**params)
        submit = Submit(
            request=number,
            prompt=prompt,
            params=requested,
            priority=priority,
            principal=principal,
            group=group,
            deadline_s=deadline_s,
        )
        self.outcomes[number] = Outcome()
        self.engine.add(self.engine.prepare(submit))
        return number

    def step(self) -> StepReport:
        report = self.engine.step()
        for started in report.started:
            assert self.outcomes[started.request].started is None, "started twice"
            self.outcomes[started.request].started = started
        for chunk in report.chunks:
            self._record(chunk.request, chunk.text, chunk.token_ids, chunk.logprobs)
        for finished in report.finished:
            self._record(finished.request, finished.text, finished.token_ids, finished.logprobs)
            self.outcomes[finished.request].finished = finished
        for failed in report.failed:
            self.outcomes[failed.request].failed = failed
        return report

    def _record(self, request: int, text: str, token_ids: list[int], logprobs: list[TokenLogprob] | None) -> None:
        outcome = self.outcomes[request]
        assert outcome.finished is None, "an event after the end"
        outcome.pieces.append(text)
        outcome.token_ids += token_ids
        outcome.logprobs += logprobs or []

    def run(self) -> None:
        """Until nothing is left to do."""
        for _ in range(MOST_STEPS):
            if not self.engine.num_unfinished:
                return
            self.step()
        raise AssertionError(f"{self.engine.num_unfinished} requests did not end within {MOST_STEPS} steps")

    def answer(self, prompt: Prompt | str, **requested: Any) -> Outcome:
        """One request, to its end."""
        number = self.submit(prompt, **requested)
        self.run()
        return self.outcomes[number]


def fake_bench(*, tick: float = 0.0, **options: Any) -> EngineBench:
    clock = Clock(tick)
    return EngineBench(build_fake_engine(EngineOptions(**options), clock=clock), clock)


def text(prompt: str) -> TextPrompt:
    return TextPrompt(text=prompt)
