"""Our engine without HTTP, processes or JSON: what the gateway costs is the difference. Run as a program, it is the child."""

from __future__ import annotations

import os
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from jobs.tasks.benchmark import WARM_UP, Load, LoadReport, prompts, report
from jobs.tasks.event_stream import Answer
from runtime.batching.engine import BatchingEngine
from runtime.events import Finished
from runtime.messages import EngineOptions, StepReport, Submit
from runtime.request import ChatPrompt, SamplingParams
from tests.benchmarks.child_peer import child, obey
from tests.benchmarks.peer import Model, Running


@dataclass(frozen=True, slots=True)
class InProcess:
    name: str = "engine alone"

    def missing(self) -> str | None:
        return None

    def start(self, model: Model, log: Path) -> AbstractContextManager[Running]:
        return child([sys.executable, "-m", __name__, str(model.folder)], os.environ, log)


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


class _ClosedLoop:
    """As many requests in the engine as there are clients; each that ends is replaced by the next."""

    def __init__(self, engine: BatchingEngine) -> None:
        self._engine = engine
        self._rows: dict[int, _Row] = {}
        self._next = 0

    def measure(self, load: Load) -> LoadReport:
        answers: list[Answer] = []
        errors: list[str] = []
        self._run([WARM_UP], load, [], [])
        started = time.perf_counter()
        self._run(prompts(load), load, answers, errors)
        return report(load, answers, errors, time.perf_counter() - started)

    def _run(self, texts: list[str], load: Load, answers: list[Answer], errors: list[str]) -> None:
        waiting = iter(texts)
        while True:
            while len(self._rows) < load.num_clients and (text := next(waiting, None)) is not None:
                self._send(text, load.max_tokens)
            if not self._rows:
                return
            self._record(self._engine.step(), answers, errors)

    def _send(self, text: str, max_tokens: int) -> None:
        self._next += 1
        self._rows[self._next] = _Row(time.perf_counter())
        prompt = ChatPrompt(messages=[{"role": "user", "content": text}])
        params = SamplingParams(temperature=0, max_tokens=max_tokens)
        self._engine.add(self._engine.prepare(Submit(request=self._next, prompt=prompt, params=params)))

    def _record(self, step: StepReport, answers: list[Answer], errors: list[str]) -> None:
        now = time.perf_counter()
        for chunk in step.chunks:
            if chunk.text:
                self._rows[chunk.request].instants.append(now)
        answers += [self._rows.pop(finished.request).answer(finished) for finished in step.finished]
        for failed in step.failed:
            del self._rows[failed.request]
            errors.append(failed.message)


def main() -> None:
    from runtime.engines.onnx import build_onnx_engine

    obey(_ClosedLoop(build_onnx_engine(Path(sys.argv[1]), EngineOptions())).measure)


if __name__ == "__main__":
    main()
