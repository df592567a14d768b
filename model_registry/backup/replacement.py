"""Emptying a home whose content is to be replaced whole. What was there is kept beside it, and comes back when that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from model_registry.database import DATABASE_NAME, REGISTRY_LOCK
from model_registry.disk import DAEMON_LOCK, PRIVATE_FILE, make_private_folder, remove_tree, storage_errors
from model_registry.errors import RegistryBusy

KEPT = "backups"  # in a home: the folder with what was there before
_STAYS = (KEPT, "locks", "slmops.toml")


@contextlib.contextmanager
def replaced_home(home: Path) -> Iterator[Path | None]:
    """In the block the home is empty; yields the folder in it with what it held, None when it held nothing.

    No daemon may use the home: RegistryBusy. When the block fails, everything is as it was.
    """
    make_private_folder(home / "locks")
    with _locked(home / DAEMON_LOCK, f"A daemon runs on {home}. Stop it first, since everything that it serves is replaced."):
        kept = home / KEPT / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S}"
        moved = _content(home)
        if moved:
            _move(home, moved, kept)
        try:
            yield kept if moved else None
        except BaseException:
            for path in _content(home):
                remove_tree(path)
            if moved:
                _move(home, [kept / path.name for path in moved], home)
                kept.rmdir()
            raise


def _content(home: Path) -> list[Path]:
    """What belongs to the home's state, the database last."""
    found = [path for path in home.iterdir() if path.name not in _STAYS]
    return sorted(found, key=lambda path: (path.name == DATABASE_NAME, path.name))


def _move(home: Path, paths: Sequence[Path], to: Path) -> None:
    busy = f"Another slmops process is writing to {home}. Wait for it, or stop it, and try again."
    with _locked(home / REGISTRY_LOCK, busy), storage_errors(home, 1 << 12, "replacing the home"):
        make_private_folder(to)
        for path in paths:
            path.rename(to / path.name)


@contextlib.contextmanager
def _locked(path: Path, busy: str) -> Iterator[None]:
    lock = FileLock(path, mode=PRIVATE_FILE)
    try:
        with storage_errors(path.parent, 1 << 12, "replacing the home"):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise RegistryBusy(busy) from error
    try:
        yield
    finally:
        lock.release()
