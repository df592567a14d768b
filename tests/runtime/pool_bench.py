"""A pool with one fake model, and what tests ask of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from runtime.generation import Generation
from runtime.messages import ChatPrompt, Chunk, EngineOptions, Finished, SamplingParams
from runtime.pool import Lease, LoadSpec, ModelPool

ROOT = Path(__file__).parents[2]
SPEC = LoadSpec("fake:1", Path(), "fake", EngineOptions(num_slots=16))
PATIENCE_S = 30.0


def ask(lease: Lease, said: str, **params: Any) -> Generation:
    return lease.submit(ChatPrompt(messages=[{"role": "user", "content": said}]), SamplingParams(**params))


async def text_of(generation: Generation) -> str:
    return "".join([event.text async for event in generation if isinstance(event, Chunk | Finished)])


async def first_chunk(generation: Generation) -> Chunk:
    async for event in generation:
        if isinstance(event, Chunk):
            return event
    raise AssertionError("it ended before it said anything")


@asynccontextmanager
async def new_pool() -> AsyncIterator[ModelPool]:
    pool = ModelPool()
    try:
        yield pool
    finally:
        await pool.close(grace_s=0.0)


def gone(pid: int) -> None:
    """Waits until the process has ended; psutil.TimeoutExpired if it does not."""
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return
