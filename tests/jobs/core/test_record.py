"""A job's record while the database is locked: callers wait for it once, and events are kept in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from jobs import record as record_module
from jobs.job import Job, JobEvent, JobStatus
from jobs.record import JobRecord
from jobs.store import JobStore
from jobs.task import JobKind
from model_registry.errors import RegistryBusy

AT = datetime(2030, 1, 1, tzinfo=UTC)


class LockedStore:
    """Refuses, once it is released, until `is_free`."""

    def __init__(self) -> None:
        self.begun, self.go, self.is_free = threading.Event(), threading.Event(), False
        self.num_saves = 0
        self.statuses: list[JobStatus] = []
        self.events: list[int] = []

    def save(self, job: Job, events: Sequence[JobEvent] = ()) -> None:
        self.num_saves += 1
        self.begun.set()
        assert self.go.wait(60)
        if not self.is_free:
            raise RegistryBusy("Another process keeps the database locked.")
        self.statuses.append(job.status)
        self.events += [event.number for event in events]


def record_in(store: LockedStore, changes: list[Job], writes: Executor | None = None) -> JobRecord:
    job = Job("job-1", JobKind.FINETUNE, {}, JobStatus.RUNNING, AT)
    return JobRecord(job, cast(JobStore, store), lambda: AT, 0, changes.append, writes)


def test_a_locked_database_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_module, "STORE_EVERY_S", 0.0)
    monkeypatch.setattr(record_module, "STORE_AGAIN_S", 600.0)
    store, changes = LockedStore(), list[Job]()

    async def body() -> None:
        record = record_in(store, changes)
        record.add_event("message", "one")
        record.store_soon()
        assert await asyncio.to_thread(store.begun.wait, 60)
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(record.store()) for _ in range(5)]
        await asyncio.sleep(0)
        store.go.set()
        await asyncio.gather(*waiting)
        await record.move(JobStatus.PAUSED)
        assert store.num_saves == 1
        assert record.refusal == "Another process keeps the database locked."
        store.is_free = True
        await record.close()
        assert record.refusal is None

    asyncio.run(body())
    assert (store.statuses, store.events) == ([JobStatus.PAUSED], [1, 2])
    assert [job.status for job in changes] == [JobStatus.PAUSED]


def test_what_is_reported_is_what_was_stored() -> None:
    """A job that ends while an earlier state is being written has not ended for the database."""
    store, changes = LockedStore(), list[Job]()
    store.is_free = True

    async def body() -> None:
        record = record_in(store, changes)
        storing = asyncio.create_task(record.store())
        assert await asyncio.to_thread(store.begun.wait, 60)
        moving = asyncio.create_task(record.move(JobStatus.CANCELLED))
        await asyncio.sleep(0)
        store.go.set()
        await asyncio.gather(storing, moving)

    asyncio.run(body())
    assert [job.status for job in changes] == store.statuses == [JobStatus.RUNNING, JobStatus.CANCELLED]


def test_what_a_caller_began_to_store_is_stored_though_it_left() -> None:
    store, changes = LockedStore(), list[Job]()
    store.is_free = True

    async def body() -> None:
        record = record_in(store, changes)
        moving = asyncio.create_task(record.move(JobStatus.PAUSED))
        assert await asyncio.to_thread(store.begun.wait, 60)
        moving.cancel()
        await asyncio.wait([moving])
        assert moving.cancelled()
        store.go.set()
        await record.close()

    asyncio.run(body())
    assert (store.statuses, store.events) == ([JobStatus.PAUSED], [1])
    assert [job.status for job in changes] == [JobStatus.PAUSED]


def test_transactions_run_where_their_owner_says() -> None:
    store, threads = LockedStore(), list[str]()
    store.is_free = True
    store.go.set()
    save = store.save

    def noted(job: Job, events: Sequence[JobEvent] = ()) -> None:
        threads.append(threading.current_thread().name)
        save(job, events)

    store.save = noted  # type: ignore[method-assign]
    with ThreadPoolExecutor(1, "writes") as writes:
        asyncio.run(record_in(store, [], writes).store())
    assert threads == ["writes_0"]
