"""The instrument that watches over all tests of the API: it finds what it should, and only that."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from model_registry.database import Database
from model_registry.disk import make_private_folder, sha256_of, tree_bytes
from model_registry.schema import Subject
from runtime.machine.provider_directory import this_cpu
from tests.loop_guard import GUARD

pytestmark = pytest.mark.api


def open_database(home: Path) -> None:
    with Database(home) as database:
        database.open()


def take_lock(home: Path) -> None:
    with Database(home).exclusive():
        pass


def query(home: Path) -> None:
    database = Database(home)
    database.open()
    GUARD.found.clear()
    with database.reading() as reader:
        database.change_count(reader, Subject.MODELS)
    assert GUARD.found
    database.close()


WAITS: dict[str, Callable[[Path], object]] = {
    "a database": open_database,
    "a lock": take_lock,
    "a statement": query,
    "a folder": lambda home: make_private_folder(home / "new"),
    "a status": lambda home: tree_bytes(home),
    "a file": lambda home: sha256_of(home / "file"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "file").touch()
    return tmp_path


@pytest.mark.parametrize("what", WAITS)
def test_what_waits_is_found_on_the_loop_and_nowhere_else(home: Path, what: str) -> None:
    async def on_the_loop() -> None:
        WAITS[what](home)

    async def in_a_thread() -> None:
        await asyncio.to_thread(WAITS[what], home)

    asyncio.run(on_the_loop())
    assert any("on the event loop" in found for found in GUARD.found)
    GUARD.found.clear()
    if what != "a statement":
        asyncio.run(in_a_thread())
        WAITS[what](home)
    assert GUARD.found == []


def test_the_kernels_memory_is_no_disk_and_other_peoples_code_is_theirs(home: Path) -> None:
    async def on_the_loop() -> None:
        for _ in range(2):
            this_cpu()
        sqlite3.connect(home / "theirs.db").close()
        with FileLock(home / "theirs.lock"):
            pass

    this_cpu()  # reads the processor's name once
    asyncio.run(on_the_loop())
    assert GUARD.found == []
