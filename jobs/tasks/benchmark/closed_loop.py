"""A closed loop on an engine in this process: as many requests under way as there are clients, each followed by the next.

The figures are those of `load`, which measures servers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobs.task import TaskContext
from jobs.tasks.benchmark.event_stream import Answer
from jobs.tasks.benchmark.load import WARM_UP, Load, LoadReport, prompts, report
from jobs.tasks.evaluate.local_model import LocalModel
from model_registry.records import Capability
from runtime.batching.engine import BatchingEngine
from runtime.protocol.events import Finished
from runtime.protocol.messages import StepReport, Submit
from runtime.protocol.request import ChatPrompt, Prompt, SamplingParams, TextPrompt

_ROUNDS, _TOKENS = 3, 64
_NUM_CLIENTS = (1, 8)


@dataclass(slots=True)
class _Row:
    """A request under way: when it was sent, and when its text came."""

    sent: float
    instants: list[float] = field(default_factory=list)

    def answer(self, finished: Finished) -> Answer:
        usage = finished.usage
        return Answer.timed(
            self.sent,
            self.instants or [time.perf_counter()],
            completion=usage.completion_tokens,
            prompt=usage.prompt_tokens,
            cached=usage.cached_tokens,
        )


class ClosedLoop:
    """between: called between steps; what it raises ends the measurement. ignore_eos: every answer is as long as it may be."""

    def __init__(self, engine: BatchingEngine, between: Callable[[], None] = lambda: None, *, ignore_eos: bool = False) -> None:
        self._engine = engine
        self._ignore_eos = ignore_eos
        self._between = between
        self._rows: dict[int, _Row] = {}
        self._next = 0

    def measure(self, load: Load) -> LoadReport:
        answers: list[Answer] = []
        errors: list[str] = []
        self._run(iter([WARM_UP]), load, [], [])
        started = time.perf_counter()
        self._run(iter(prompts(load)), load, answers, errors)
        return report(load, answers, errors, time.perf_counter() - started)

    def _run(self, waiting: Iterator[str], load: Load, answers: list[Answer], errors: list[str]) -> None:
        while True:
            while len(self._rows) < load.num_clients and (text := next(waiting, None)) is not None:
                self._send(text, load.max_tokens)
            if not self._rows:
                return
            self._between()
            self._record(self._engine.step(), answers, errors)

    def _send(self, text: str, max_tokens: int) -> None:
        self._next += 1
        self._rows[self._next] = _Row(time.perf_counter())
        params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=self._ignore_eos)
        self._engine.add(self._engine.prepare(Submit(request=self._next, prompt=self._prompt(text), params=params)))

    def _prompt(self, text: str) -> Prompt:
        if Capability.CHAT in self._engine.info.capabilities:
            return ChatPrompt(messages=[{"role": "user", "content": text}])
        return TextPrompt(text=text)

    def _record(self, step: StepReport, answers: list[Answer], errors: list[str]) -> None:
        now = time.perf_counter()
        for chunk in step.chunks:
            if chunk.text:
                self._rows[chunk.request].instants.append(now)
        answers += [self._rows.pop(finished.request).answer(finished) for finished in step.finished]
        for failed in step.failed:
            del self._rows[failed.request]
            errors.append(failed.message)


def decode_speed(folder: Path, context: TaskContext) -> tuple[float, float]:
    """The best of some rounds, since what else the machine does only slows. Raises ValueError when it cannot run here."""
    context.stage("measuring the speed")
    model = LocalModel(folder, context)
    best: list[float] = []
    try:
        loop = ClosedLoop(model.engine, context.check, ignore_eos=True)
        for clients in _NUM_CLIENTS:
            load = Load(num_clients=clients, num_requests=clients, max_tokens=_TOKENS)
            best.append(max(loop.measure(load).tokens_per_s for _ in range(_ROUNDS)))
    finally:
        model.close()
    return best[0], best[1]
