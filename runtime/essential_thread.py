"""Threads that a process cannot do without: when one fails, the process ends, instead of living on while others wait for it."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable

FAILED = 1  # the process's exit code


def start_thread(name: str, target: Callable[[], None]) -> None:
    """Runs target on a daemon thread; whatever it raises, panics of libraries included, is logged and ends the process."""

    def run() -> None:
        try:
            target()
        except BaseException as error:
            log_error(error, f"the thread {name}")
            os._exit(FAILED)

    threading.Thread(target=run, name=name, daemon=True).start()


def log_error(error: BaseException, where: str) -> None:
    """Where and what kind, to standard error; never the error's text, which may quote a prompt."""
    print(f"{type(error).__name__} in {where}:", file=sys.stderr, flush=True)  # noqa: T201
    traceback.print_tb(error.__traceback__)
