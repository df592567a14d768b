"""Finds calls that wait for a disk, a lock or a database on the thread of a running event loop, while the API's tests run.

Files and SQLite connections report to `sys.addaudithook`; statements, lock files and `os.stat`, which do not, are wrapped. Only our
own code is meant: a call counts when one of our packages is on its stack.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import traceback
from asyncio import unix_events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from filelock import BaseFileLock
from sqlalchemy import Engine, event

ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / package) + os.sep for package in ("server", "jobs", "runtime", "model_registry"))
EVENTS = frozenset(
    {"open", "sqlite3.connect", "fcntl.flock", "fcntl.lockf", "glob.glob", "subprocess.Popen"}
    | {f"os.{name}" for name in ("listdir", "scandir", "mkdir", "rename", "remove", "rmdir", "link", "symlink", "chmod", "utime")}
    | {f"shutil.{name}" for name in ("rmtree", "copyfile", "copytree", "move", "make_archive", "unpack_archive")}
    | {f"tempfile.{name}" for name in ("mkdtemp", "mkstemp")}
)
CALLS = ("stat", "lstat", "access", "statvfs", "fsync")  # of `os`, which report to no hook
HEAVY = ("alembic", "gguf", "huggingface_hub", "jobs.tasks.", "numpy", "onnx", "onnxruntime", "torch", "transformers")
NO_DISK = ("/proc/", "/sys/", "/dev/")  # the kernel's memory, read in microseconds: psutil's figures for placement and metrics
ALLOWED = {
    "<frozen importlib._bootstrap>": "a module that is imported where it is used, once",
    inspect.__file__: "where an endpoint is defined, which FastAPI looks up at its first request",
    unix_events.__file__: "asyncio's own start of a child process",
    traceback.__file__: "the source lines of an unexpected exception, for the log",
}


class LoopGuard:
    """found: the stack of each call that stood in the way of an event loop since the last `watching` began."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._is_on = False
        self._is_installed = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks cannot be removed, so they are installed once and act within the block."""
        if not self._is_installed:
            self._install()
        self.found = []
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False

    def _install(self) -> None:
        self._is_installed = True
        sys.addaudithook(self._audit)
        event.listen(Engine, "before_cursor_execute", lambda *given: self._check("SQL", given[2]))
        for name in CALLS:
            call = getattr(os, name)
            setattr(os, name, self._reporting(f"os.{name}", call))
            for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):  # by these sets `shutil` chooses its way
                if call in able:
                    able.add(getattr(os, name))
        BaseFileLock.acquire = self._reporting("FileLock.acquire", BaseFileLock.acquire)  # type: ignore[method-assign]

    def _audit(self, name: str, given: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if name in EVENTS:
            self._check(name, given[0] if given else None)
        elif name == "import" and given[0].startswith(HEAVY) and given[0] not in sys.modules:
            self._check("import", given[0], allowed={})

    def _reporting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def reporting(*given: Any, **named: Any) -> Any:
            if self._is_on:
                self._check(name, given[0] if given else None)
            return call(*given, **named)

        return reporting

    def _check(self, name: str, subject: object, *, allowed: dict[str, str] = ALLOWED) -> None:
        if not self._is_on or asyncio._get_running_loop() is None:
            return
        if str(subject).startswith(NO_DISK) or (name == "open" and isinstance(subject, int)):
            return
        files = [frame.f_code.co_filename for frame in _frames(sys._getframe(1))]
        if any(file in allowed for file in files) or not any(file.startswith(OURS) for file in files):
            return
        self._is_on = False
        stack = "".join(traceback.format_stack(sys._getframe(1), limit=12))
        self._is_on = True
        self.found.append(f"{name} {subject!s:.200} on the event loop:\n{stack}")


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


GUARD = LoopGuard()


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """Imported by the conftest of each folder whose tests run the API."""
    with GUARD.watching():
        yield
    assert GUARD.found == [], "\n".join(GUARD.found)
