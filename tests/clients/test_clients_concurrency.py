"""Many clients at once with the real model: each is answered as if it were alone, and one that leaves frees its place."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import httpx
import openai

from tests.clients.conversations import MODEL, at_once, user

TOPICS = ["cats", "bread", "Rome", "jazz", "rain", "chess", "gold", "tea"]
TOPICS += ["ants", "Mars", "salt", "kites", "ice", "owls", "ink", "sleep"]
LEAVES_WITHIN_S = 2.0
Work = Callable[[openai.AsyncOpenAI], Awaitable[str]]


def streamed(text: str, **sampling: object) -> Work:
    async def send(client: openai.AsyncOpenAI) -> str:
        stream = await client.chat.completions.create(
            model=MODEL, messages=user(text), max_tokens=24, stream=True, extra_body=sampling
        )
        return "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])

    return send


def test_sixteen_streams_equal_their_answers_alone(real_daemon: str) -> None:
    works = [streamed(f"Write about {topic}{', briefly' * (i % 4)}.", temperature=0) for i, topic in enumerate(TOPICS)]
    alone = [at_once(real_daemon, [work])[0] for work in works]
    assert len(set(alone)) == len(TOPICS)
    assert at_once(real_daemon, works) == alone


def test_a_seed_repeats_alone_and_beside_others(real_daemon: str) -> None:
    seeded = streamed("Invent a name for a star.", temperature=1.0, seed=7)
    first, second, other = (
        at_once(real_daemon, [work])[0] for work in (seeded, seeded, streamed("Invent a name for a star.", seed=8))
    )
    assert first == second != other
    beside = at_once(real_daemon, [*(streamed(f"Write about {topic}.", temperature=1.0) for topic in TOPICS[:8]), seeded])
    assert beside[-1] == first


def num_running(http: httpx.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:num_requests_running{"))


def test_a_client_that_leaves_frees_its_row(client: openai.OpenAI, http: httpx.Client) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=user("Count."), max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
    )
    for _ in range(3):
        next(stream)
    while num_running(http) != 1:
        next(stream)
    stream.close()
    left = time.monotonic()
    while num_running(http) > 0:
        assert time.monotonic() - left < LEAVES_WITHIN_S, "the row still runs"
