"""A worker's heartbeat: says every second that the process lives, and how long the step and the preparation in progress have taken.

On a thread of its own, because a step that hangs in a native library tells nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from runtime.messages import Heartbeat

BEAT_EVERY_S = 1.0


class Pulse:
    """send: called from the heartbeat's thread. Use as `with pulse:` around each step.

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
