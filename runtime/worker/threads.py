"""A worker's heartbeat, and threads that a process cannot do without: when one fails, the process ends."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable

from runtime.protocol.messages import Heartbeat

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
    """Writes the error's type and place to standard error; never its text, which may quote a prompt."""
    print(f"{type(error).__name__} in {where}:", file=sys.stderr, flush=True)  # noqa: T201
    traceback.print_tb(error.__traceback__)


BEAT_EVERY_S = 1.0


class Pulse:
    """The heartbeat: reports every second that the process lives, and how long the current step and preparation have taken.

    It has a thread of its own, because a step that hangs in a native library reports nothing.
    send: called from the heartbeat's thread. Use as `with pulse:` around each step.

    oldest: the request that has waited longest to be prepared, and for how long; see `PreparationQueue.oldest`.
    """

    def __init__(
        self,
        send: Callable[[Heartbeat], None],
        oldest: Callable[[], tuple[int | None, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._oldest = oldest
        self._clock = clock
        self._step_began: float | None = None

    def __enter__(self) -> None:
        self._step_began = self._clock()

    def __exit__(self, *_: object) -> None:
        self._step_began = None

    def beat(self) -> None:
        began = self._step_began
        step_s = 0.0 if began is None else self._clock() - began
        preparing, preparing_s = self._oldest()
        self._send(Heartbeat(step_s=step_s, preparing=preparing, preparing_s=preparing_s))

    def run(self) -> None:
        """The heartbeat's thread: until the gateway is gone."""
        wait = threading.Event()
        while not wait.wait(BEAT_EVERY_S):
            try:
                self.beat()
            except BrokenPipeError:
                return
