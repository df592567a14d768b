"""The thread of writes: in order, each with a deadline of its own, carried out once submitted, and drained at the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from model_registry.database import Database
from model_registry.errors import RegistryBusy
from server.storage.threads import WriteThread

PATIENCE_S = 30  # guards against a hang


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path, lock_timeout_s=0.2) as database:
        database.open()
        yield database


@pytest.fixture
def writes(database: Database) -> Iterator[WriteThread]:
    with WriteThread(database) as writes:
        yield writes


def test_writes_run_one_after_another_in_their_order(writes: WriteThread) -> None:
    seen: list[tuple[int, int]] = []

    async def body() -> None:
        await asyncio.gather(*(writes.write(lambda i=i: seen.append((i, threading.get_ident()))) for i in range(20)))

    asyncio.run(body())
    assert [number for number, _ in seen] == list(range(20))
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()


def test_those_in_line_behind_a_busy_database_fail_together(database: Database, writes: WriteThread) -> None:
    """Each waits from when it was submitted: the fourth not four times as long."""
    waits: list[float] = []

    def write() -> None:
        began_s = time.monotonic()
        try:
            with database.exclusive():
                pass
        finally:
            waits.append(time.monotonic() - began_s)

    with FileLock(database.home / "locks/registry.lock"):
        submitted = [writes.submit(write) for _ in range(4)]
        for each in submitted:
            with pytest.raises(RegistryBusy):
                each.result(PATIENCE_S)
    assert sum(waits) < 2 * database.lock_timeout_s


def test_a_deadline_of_its_own_is_heeded(database: Database, writes: WriteThread) -> None:
    def write() -> None:
        with database.exclusive():
            pass

    with FileLock(database.home / "locks/registry.lock"), pytest.raises(RegistryBusy, match="for 0 s"):
        asyncio.run(writes.write(write, deadline_s=0.0))
    asyncio.run(writes.write(write, deadline_s=0.0))


def test_a_write_whose_caller_left_is_carried_out(writes: WriteThread) -> None:
    gate, done = threading.Event(), list[str]()

    async def body() -> None:
        running = asyncio.create_task(writes.write(partial(gate.wait, PATIENCE_S)))
        queued = asyncio.create_task(writes.write(lambda: done.append("queued")))
        await asyncio.sleep(0)
        for task in (running, queued):
            task.cancel()
        await asyncio.wait([running, queued])
        assert running.cancelled()
        assert queued.cancelled()
        gate.set()
        await writes.write(lambda: done.append("next"))

    asyncio.run(body())
    assert done == ["queued", "next"]


def test_the_end_waits_for_what_was_submitted(database: Database) -> None:
    writes, done = WriteThread(database), list[int]()
    for number in range(3):
        writes.submit(done.append, number)
    writes.shutdown()
    assert done == [0, 1, 2]
    with pytest.raises(RuntimeError):
        writes.submit(done.append, 3)


def test_what_a_write_raises_reaches_its_caller(writes: WriteThread) -> None:
    def fail() -> None:
        raise RegistryBusy("Another process writes.")

    with pytest.raises(RegistryBusy):
        asyncio.run(writes.write(fail))
    with pytest.raises(RegistryBusy):
        writes.submit(fail).result(PATIENCE_S)
