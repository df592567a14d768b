"""What is measured and what we want to reach: the loads, the figures taken of each, and the targets. Data and pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from jobs.tasks.benchmark.load import Load, LoadReport

SLMOPS, ENGINE, LLAMA, FOUNDRY = "slmops", "engine alone", "llama-server", "Foundry Local"
LONG_PROMPT_WORDS = 500


@dataclass(frozen=True, slots=True)
class Workload:
    """key: how figures refer to it. requests_per_client: how many each client sends in a full run."""

    key: str
    load: Load
    requests_per_client: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One workload on one peer. peak_bytes: resident memory of its whole process tree, at its highest."""

    report: LoadReport
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Round:
    """Everything that one start of one peer gave."""

    ready_s: float
    first_token_s: float
    measured: Mapping[str, Measured]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table. targets: peer -> the ratio ours/theirs that we want; of a figure where less is better, at most."""

    title: str
    unit: str
    value: Callable[[Round], float | None]
    targets: Mapping[str, float] = field(default_factory=dict)
    less_is_better: bool = False


WORKLOADS = (
    Workload("1", Load(num_clients=1), 8),
    Workload("8", Load(num_clients=8), 3),
    Workload("16", Load(num_clients=16), 3),
    Workload("long", Load(num_clients=4, prompt_words=LONG_PROMPT_WORDS), 2),
    Workload("shared", Load(num_clients=4, shared_prefix_words=LONG_PROMPT_WORDS), 3),
)


def planned(workload: Workload, number: int, *, max_tokens: int, requests_per_client: int | None) -> Load:
    """The load of a workload in a round. Seeds differ between workloads, so that no cache knows the next one's prompts."""
    per_client = requests_per_client or workload.requests_per_client
    return replace(
        workload.load,
        num_requests=per_client * workload.load.num_clients,
        max_tokens=max_tokens,
        seed=100 * number + WORKLOADS.index(workload),
    )


def _of(key: str, value: Callable[[Measured], float | None]) -> Callable[[Round], float | None]:
    return lambda round_: value(round_.measured[key]) if key in round_.measured else None


def _tokens_per_s(key: str) -> Callable[[Round], float | None]:
    return _of(key, lambda measured: measured.report.tokens_per_s)


def _ttft_ms(key: str) -> Callable[[Round], float | None]:
    return _of(key, lambda measured: _milliseconds(measured.report.ttft_p50_s))


def _memory_mb(key: str) -> Callable[[Round], float | None]:
    return _of(key, lambda measured: measured.peak_bytes / (1 << 20))


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


FIGURES = (
    Figure("1 client", "tokens/s", _tokens_per_s("1"), {LLAMA: 1.2, FOUNDRY: 1.5, ENGINE: 0.93}),
    Figure("8 clients", "tokens/s", _tokens_per_s("8"), {LLAMA: 2.7, FOUNDRY: 4.0, ENGINE: 0.93}),
    Figure("16 clients", "tokens/s", _tokens_per_s("16"), {LLAMA: 3.0, FOUNDRY: 5.0, ENGINE: 0.93}),
    Figure("4 clients, 500-word prompts", "tokens/s", _tokens_per_s("long"), {LLAMA: 2.7}),
    Figure("4 clients, 500-word prompts, TTFT p50", "ms", _ttft_ms("long"), {LLAMA: 0.35}, True),
    Figure("4 clients, shared 500-word prefix", "tokens/s", _tokens_per_s("shared")),
    Figure("4 clients, shared 500-word prefix, TTFT p50", "ms", _ttft_ms("shared"), {LLAMA: 0.4}, True),
    Figure("1 client, TTFT p50", "ms", _ttft_ms("1"), {}, True),
    Figure("16 clients, TTFT p50", "ms", _ttft_ms("16"), {}, True),
    Figure("resident memory at 1 client", "MB", _memory_mb("1"), {}, True),
    Figure("resident memory at 16 clients", "MB", _memory_mb("16"), {LLAMA: 0.5}, True),
    Figure("start to ready", "s", lambda round_: round_.ready_s, {}, True),
    Figure("start to first token", "s", lambda round_: round_.first_token_s, {}, True),
)
