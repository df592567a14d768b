"""When to stop restarting a model that keeps failing, and when to try again. Knows no process.

Closed: failures are retried, later each time. Open: after MOST_IN_ROW failures with no answer between them, nothing is tried until
COOLDOWN_S have passed or an operator resets it; then one failure opens it again. (Nygard, Release It!, "Circuit Breaker".)
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime.errors import NotReady

RETRY_DELAYS_S = (0.0, 0.5, 2.0, 5.0)  # after the 1st, 2nd, ... failure in a row
MOST_IN_ROW = 5
COOLDOWN_S = 300.0


class Breaker:
    """Of one model."""

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._clock = clock
        self._in_row = 0
        self._opened_at: float | None = None
        self.last_error: str | None = None

    def failed(self, why: str) -> None:
        self.last_error = why
        self._in_row += 1
        if self._in_row >= MOST_IN_ROW:
            self._opened_at = self._clock()

    def worked(self) -> None:
        """An answer was finished, which proves that the model can."""
        self._in_row = 0
        self._opened_at = None

    def reset(self) -> None:
        self.worked()
        self.last_error = None

    @property
    def is_open(self) -> bool:
        return self._left_s() > 0

    @property
    def retry_delay_s(self) -> float:
        return RETRY_DELAYS_S[min(max(self._in_row - 1, 0), len(RETRY_DELAYS_S) - 1)]

    def refusal(self) -> NotReady:
        """What is told to who asks while it is open."""
        return NotReady(
            f"{self._label} failed {self._in_row} times in a row and is not tried for another {self._left_s():.0f} s; the last "
            f"error: {(self.last_error or 'unknown').rstrip('.')}. Mend the cause, then POST /admin/models/{self._label}/reset.",
            code="model_broken",
            retry_after_s=max(1.0, self._left_s()),
        )

    def _left_s(self) -> float:
        return 0.0 if self._opened_at is None else max(0.0, self._opened_at + COOLDOWN_S - self._clock())
