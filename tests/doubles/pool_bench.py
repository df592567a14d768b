"""A pool with fake models, and helpers of its tests."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from runtime.pool.capacity import PoolLimits
from runtime.pool.generation import Generation
from runtime.pool.handle import WorkerFactory
from runtime.pool.lease import Lease
from runtime.pool.loaded_model import Candidate, Left, LoadSpec, PoolEvent
from runtime.pool.local import LocalWorkers
from runtime.pool.memory import MemoryEstimate
from runtime.pool.model_pool import ModelPool
from runtime.protocol.events import Chunk, Finished
from runtime.protocol.messages import EngineOptions
from runtime.protocol.request import ChatPrompt, SamplingParams
from tests.doubles.fake_worker import FakeWorkers

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0
MIB = 1 << 20


def spec_of(
    label: str, options: EngineOptions | None = None, *, engine: str = "fake", folder: Path = Path(), mib: int = 64, **rest: Any
) -> LoadSpec:
    """mib: what the pool expects the model to take, with its KV."""
    memory = MemoryEstimate((mib - 1) * MIB, MIB, MIB)
    return LoadSpec(label, (Candidate(folder, engine, memory),), options or EngineOptions(num_slots=16), **rest)


SPEC = spec_of("fake:1")


def start_chat(lease: Lease, text: str, **params: Any) -> Generation:
    return lease.submit(ChatPrompt(messages=[{"role": "user", "content": text}]), SamplingParams(**params))


async def text_of(generation: Generation) -> str:
    return "".join([event.text async for event in generation if isinstance(event, Chunk | Finished)])


async def first_chunk(generation: Generation) -> Chunk:
    async for event in generation:
        if isinstance(event, Chunk):
            return event
    raise AssertionError("it ended without any text")


@asynccontextmanager
async def new_pool(
    limits: PoolLimits | None = None, start_worker: WorkerFactory | None = None, *, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[ModelPool]:
    """With workers that have no processes, by default. Nothing may be left behind: no worker, and no unretrieved failure."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    pool = ModelPool(limits or PoolLimits(), start_worker or FakeWorkers(), clock=clock)
    try:
        yield pool
    finally:
        await pool.close(grace_s=0.0)
    gc.collect()
    await asyncio.sleep(0)
    assert pool.loaded() == ()
    assert unhandled == []


def process_pool(limits: PoolLimits | None = None) -> AbstractAsyncContextManager[ModelPool]:
    """With real workers, in processes of their own."""
    return new_pool(limits, LocalWorkers())


def departures_of(pool: ModelPool) -> asyncio.Queue[Left]:
    """Of models that leave from now on."""
    left: asyncio.Queue[Left] = asyncio.Queue()

    def publish_event(event: PoolEvent) -> None:
        if isinstance(event, Left):
            left.put_nowait(event)

    pool.listeners.append(publish_event)
    return left


def gone(pid: int) -> None:
    """Waits until the process has ended; psutil.TimeoutExpired if it does not."""
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return
