"""A closed-loop load on any OpenAI-compatible server: what its clients wait for, and how many tokens they get.

Owns prompts, clients and percentiles. Knows nothing of the server behind the URL: every figure comes from its stream of
server-sent events and the usage at its end. The wire itself is `event_stream`.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from jobs.tasks.benchmark.event_stream import Answer, EventStream, StreamFailed

_WORDS = """
river stone market winter garden signal bridge lantern copper harbor meadow thunder basket velvet orbit canyon pepper
ribbon anchor saddle mirror forest candle engine marble island button feather ladder needle
"""
OPENINGS = (
    "Write a long story about",
    "Explain in many paragraphs the history of",
    "Describe in great detail",
    "Give a lecture on",
)
WARM_UP = "Say hi."


@dataclass(frozen=True, slots=True)
class Target:
    """A server. url: up to and with `/v1`. model: None leaves it to the server. extra: fields added to each body.

    is_chat: false sends plain prompts to `/completions`, for base models.
    """

    url: str
    model: str | None = None
    api_key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    is_chat: bool = True


@dataclass(frozen=True, slots=True)
class Load:
    """`num_clients` clients send `num_requests` completions between them, each its next when its last has ended.

    prompt_words: random words per prompt, the same for the same seed. shared_prefix_words: what all prompts begin with.
    """

    num_clients: int = 1
    num_requests: int = 8
    max_tokens: int = 64
    prompt_words: int = 12
    shared_prefix_words: int = 0
    seed: int = 7
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What one load measured. Quantiles are over requests (ttft) and over gaps between events (gap); seconds.

    tokens_per_s: completion tokens of all clients over wall time, without the warm-up. first_error: None if none.
    """

    num_clients: int
    num_ok: int
    num_errors: int
    wall_s: float
    completion_tokens: int
    tokens_per_s: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    gap_p50_s: float | None
    gap_p99_s: float | None
    mean_prompt_tokens: float
    mean_cached_tokens: float
    first_error: str | None = None


def prompts(load: Load) -> list[str]:
    """The texts of a load's requests, in order. Pure."""
    words = _WORDS.split()
    chance = random.Random(load.seed)  # noqa: S311 - prompts, not secrets
    shared = " ".join(chance.choice(words) for _ in range(load.shared_prefix_words))
    texts = []
    for _ in range(load.num_requests):
        opening = chance.choice(OPENINGS)
        subject = " ".join(chance.choice(words) for _ in range(load.prompt_words))
        texts.append(f"{shared} {opening} {subject}.".lstrip())
    return texts


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` (0 to 1) of the values do not exceed; None of no values."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def report(load: Load, answers: Sequence[Answer], errors: Sequence[str], wall_s: float) -> LoadReport:
    """Sums up a load that took `wall_s`. Pure."""
    waits = [answer.ttft_s for answer in answers]
    gaps = [gap for answer in answers for gap in answer.gaps_s]
    tokens = sum(answer.completion_tokens for answer in answers)
    return LoadReport(
        num_clients=load.num_clients,
        num_ok=len(answers),
        num_errors=len(errors),
        wall_s=wall_s,
        completion_tokens=tokens,
        tokens_per_s=tokens / wall_s if wall_s > 0 else 0.0,
        ttft_p50_s=quantile(waits, 0.5),
        ttft_p99_s=quantile(waits, 0.99),
        gap_p50_s=quantile(gaps, 0.5),
        gap_p99_s=quantile(gaps, 0.99),
        mean_prompt_tokens=statistics.fmean(answer.prompt_tokens for answer in answers) if answers else 0.0,
        mean_cached_tokens=statistics.fmean(answer.cached_tokens for answer in answers) if answers else 0.0,
        first_error=errors[0] if errors else None,
    )


async def run_load(target: Target, load: Load) -> LoadReport:
    """One warm-up request, then the load. Failed requests are counted, not raised, also of an unreachable server."""
    stream = EventStream(target.url, target.api_key, "chat/completions" if target.is_chat else "completions")
    answers: list[Answer] = []
    errors: list[str] = []

    async def send_request(text: str, answered: list[Answer], failed: list[str]) -> None:
        try:
            async with asyncio.timeout(load.timeout_s):
                answered.append(await stream.complete(_body(target, load, text)))
        except StreamFailed as error:
            failed.append(str(error))
        except TimeoutError:
            failed.append(f"no complete answer within {load.timeout_s:g} s")

    async def client(texts: Iterator[str]) -> None:
        for text in texts:
            await send_request(text, answers, errors)

    await send_request(WARM_UP, [], [])
    remaining = iter(prompts(load))
    started = time.perf_counter()
    await asyncio.gather(*(client(remaining) for _ in range(load.num_clients)))
    return report(load, answers, errors, time.perf_counter() - started)


def _body(target: Target, load: Load, text: str) -> dict[str, Any]:
    prompt_fields = {"messages": [{"role": "user", "content": text}]} if target.is_chat else {"prompt": text}
    body: dict[str, Any] = {
        **prompt_fields,
        "max_tokens": load.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **target.extra,
    }
    if target.model is not None:
        body["model"] = target.model
    return body
