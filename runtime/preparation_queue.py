"""What a worker's intake thread has still to prepare, and for how long the first of it has been first. Knows no engine.

What is being prepared stays first until it is done. So another thread sees a preparation without end, and also a thread that has
died over one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from runtime.messages import Detokenize, Drain, Submit, Tokenize

Unprepared = Submit | Tokenize | Detokenize | Drain


class PreparationQueue:
    """Thread-safe; one thread calls `first` and `done`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: deque[Unprepared] = deque()
        self._first_since = 0.0

    def put(self, message: Unprepared) -> None:
        with self._changed:
            if not self._waiting:
                self._first_since = self._clock()
            self._waiting.append(message)
            self._changed.notify()

    def first(self) -> Unprepared:
        """Blocks while there is none. Stays first until `done`."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            return self._waiting[0]

    def done(self) -> None:
        with self._changed:
            self._waiting.popleft()
            self._first_since = self._clock()

    def oldest(self) -> tuple[int | None, float]:
        """The number of the first request, and the seconds since it became the first; (None, 0) when nothing waits."""
        with self._changed:
            if not self._waiting:
                return None, 0.0
            first = self._waiting[0]
            number = None if isinstance(first, Drain) else first.request
            return number, self._clock() - self._first_since
