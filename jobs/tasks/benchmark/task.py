"""Task `benchmark`: how fast a version answers on this machine, what memory it takes, and whether it got slower or leaks."""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from jobs.fields import VersionName
from jobs.task import JobKind, Outcome, Params, Plan, TaskContext
from jobs.tasks.benchmark.closed_loop import ClosedLoop
from jobs.tasks.benchmark.load import Load, LoadReport
from jobs.tasks.checkpoints import served_variant
from jobs.tasks.evaluate.local_model import LocalModel
from jobs.tasks.preconditions import check_runs_here
from model_registry.evaluations import Evaluation

_TOKENS_PER_S = 200.0  # on two cores, for plans
_NOISE = 3.0  # a change counts beyond so many deviations of the rounds, and beyond the least change
_LEAST_CHANGE = 0.05
_LEAK_BYTES = 32 << 20
_RESULTS = "rounds.jsonl"
_REPORT = "benchmark.md"


class BenchmarkParams(Params):
    """Measures a version's speed, latency and memory on this machine."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "my-model", "concurrency": [1, 8]}]})

    model: VersionName = Field(min_length=1, description="A version of the registry.")
    concurrency: list[int] = Field([1, 4, 8], min_length=1, max_length=8, description="Numbers of clients at a time.")
    prompt_words: list[int] = Field([12, 256], min_length=1, max_length=8, description="Lengths of the prompts, in words.")
    max_tokens: int = Field(64, ge=2, le=4096, description="Length of each answer, in tokens.")
    requests: int = Field(8, ge=1, le=1000, description="Requests per client count and length, at least one per client.")
    rounds: int = Field(3, ge=1, le=100, description="Repetitions; figures are medians.")


class Benchmark:
    """A round that was measured is not measured again."""

    kind: ClassVar[JobKind] = JobKind.BENCHMARK
    params: ClassVar[type[Params]] = BenchmarkParams

    def plan(self, params: BenchmarkParams, context: TaskContext) -> Plan:
        version = context.registry.resolve(params.model)
        check_runs_here(version, "model")
        loads = _loads(params)
        tokens = params.rounds * sum(load.num_requests * (load.max_tokens + load.prompt_words) for load in loads)
        summary = (f"Measures {version.label} under {len(loads)} loads, {params.rounds} times, beside what the machine does now.",)
        return Plan(summary, num_steps=params.rounds * len(loads), duration_s=tokens / _TOKENS_PER_S)

    def stages(self, params: BenchmarkParams, context: TaskContext) -> tuple[str, ...]:
        return ("loading the model", "measuring")

    def run(self, params: BenchmarkParams, context: TaskContext) -> Outcome:
        version = context.registry.resolve(params.model)
        rounds = _measured(params, served_variant(version).folder, context)
        metrics, spreads = _summary(rounds)
        details: dict[str, Any] = {"params": params.model_dump(mode="json"), "spreads": spreads}
        earlier = [each for each in context.evaluations.of(version.model, "benchmark") if each.job != context.job]
        before = next((each for each in earlier if _like(each, params)), None)
        details["regressions"] = regressions(before or Evaluation("", "benchmark", {}), metrics, spreads)
        details["compared_with"] = before.version if before else None
        context.evaluations.add(Evaluation(version.label, str(JobKind.BENCHMARK), metrics, details, context.job))
        for sentence in details["regressions"]:
            context.reporter.message(sentence, "warning")
        lines = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
        heading = [f"# Benchmark of {version.label}", "", *details["regressions"], "", "| figure | median |", "|---|---|"]
        (context.folder / _REPORT).write_text("\n".join([*heading, *lines, ""]), encoding="utf-8")
        return Outcome(None, metrics, (_REPORT,), details)


def regressions(before: Evaluation, metrics: Mapping[str, float], spreads: Mapping[str, float]) -> list[str]:
    """One sentence for each figure that is worse than before by more than 5 % and the noise of both measurements, and for a
    leak.
    """
    warnings = []
    for name, value in metrics.items():
        old = before.metrics.get(name)
        if name == "leaked_bytes" and value > 0:
            warnings.append(f"Memory grew by {value / 1e6:.0f} MB from round to round.")
        if not old:
            continue
        more_is_better = name.startswith("tokens_per_s")
        worse = (old - value if more_is_better else value - old) / old
        noise = _NOISE * max(spreads.get(name, 0.0), before.details.get("spreads", {}).get(name, 0.0))
        if worse > max(_LEAST_CHANGE, noise):
            warnings.append(f"{name} is {worse:.0%} worse than of {before.version}: {value:.4g} against {old:.4g}.")
    return warnings


def _like(earlier: Evaluation, params: BenchmarkParams) -> bool:
    """Whether it measured the same, whatever the version."""
    return {**earlier.details.get("params", {}), "model": params.model} == params.model_dump(mode="json")


def _loads(params: BenchmarkParams) -> list[Load]:
    return [
        Load(num_clients=clients, num_requests=max(clients, params.requests), max_tokens=params.max_tokens, prompt_words=words)
        for words in params.prompt_words
        for clients in params.concurrency
    ]


def _measured(params: BenchmarkParams, folder: Any, context: TaskContext) -> list[dict[str, float]]:
    """The figures of each round, kept in the job's folder as they are measured."""
    path = context.folder / _RESULTS
    rounds: list[dict[str, float]] = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if len(rounds) == params.rounds:
        return rounds
    context.stage("loading the model")
    model = LocalModel(folder, context)
    try:
        loop = ClosedLoop(model.engine, context.check, ignore_eos=True)
        context.stage("measuring")
        while len(rounds) < params.rounds:
            figures: dict[str, float] = {}
            for load in _loads(params):
                figures |= _named(load, loop.measure(load))
                context.progress(len(rounds), params.rounds, unit="rounds", **figures)
            gc.collect()
            rounds.append(figures | {"resident_bytes": float(model.resident_bytes())})
            beside = path.with_suffix(".new")
            beside.write_text("".join(json.dumps(each) + "\n" for each in rounds))
            beside.replace(path)
            context.progress(len(rounds), params.rounds, unit="rounds")
    finally:
        model.close()
    return rounds


def _named(load: Load, found: LoadReport) -> dict[str, float]:
    name = f"{load.num_clients}x{load.prompt_words}"
    figures = {
        f"tokens_per_s@{name}": found.tokens_per_s,
        f"ttft_p50_s@{name}": found.ttft_p50_s,
        f"token_gap_p50_s@{name}": found.gap_p50_s,
    }
    return {figure: value for figure, value in figures.items() if value is not None}


def _summary(rounds: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """(medians, median absolute deviations as parts of them). leaked_bytes: what later rounds took beyond the first two."""
    metrics = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    spreads = {
        name: statistics.median(abs(each[name] - middle) for each in rounds) / middle for name, middle in metrics.items() if middle
    }
    if len(rounds) > 2:
        growth = rounds[-1]["resident_bytes"] - rounds[1]["resident_bytes"]
        metrics["leaked_bytes"] = growth if growth > _LEAK_BYTES else 0.0
    return metrics, spreads


TASK = Benchmark()
