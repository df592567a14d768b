"""When a model that keeps failing is tried again, and when it is left alone for a while. Knows no process.

Closed: attempts are spaced, each failure in a row by a longer pause, whatever would start the next one: a restart waits for the end
of the pause, a request is refused until then. Open: after MOST_IN_ROW failures with no answer between them, nothing is tried until
COOLDOWN_S have passed or an operator resets it; then one failure opens it again. (Nygard, Release It!, "Circuit Breaker".)
"""

from __future__ import annotations

import time
from collections.abc import Callable

from runtime.protocol.errors import NotReady

RETRY_DELAYS_S = (0.0, 0.5, 2.0, 5.0)  # after the 1st, 2nd, ... failure in a row
MOST_IN_ROW = 5
COOLDOWN_S = 300.0


class Breaker:
    """The breaker of one model."""

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._label = label
        self._clock = clock
        self._in_row = 0
        self._resumes_at = clock()
        self.last_error: str | None = None

    def failed(self, why: str) -> None:
        """During a pause it was an attempt that had begun before, beside the one that failed first: both count as one."""
        self.last_error = why
        if self.pause_s > 0:
            return
        self._in_row += 1
        pause_s = COOLDOWN_S if self._in_row >= MOST_IN_ROW else RETRY_DELAYS_S[min(self._in_row, len(RETRY_DELAYS_S)) - 1]
        self._resumes_at = self._clock() + pause_s

    def worked(self) -> None:
        """An answer was finished, which proves that the model can."""
        self._in_row = 0
        self._resumes_at = self._clock()

    def reset(self) -> None:
        self.worked()
        self.last_error = None

    @property
    def is_open(self) -> bool:
        return self._in_row >= MOST_IN_ROW and self.pause_s > 0

    @property
    def pause_s(self) -> float:
        """Seconds until the next attempt may begin; 0: it may now."""
        return max(0.0, self._resumes_at - self._clock())

    def refusal(self) -> NotReady:
        """What a request gets while nothing is tried."""
        pause_s, last_error = self.pause_s, (self.last_error or "unknown").rstrip(".")
        if self.is_open:
            return NotReady(
                f"{self._label} failed {self._in_row} times in a row and is not tried for another {pause_s:.0f} s; the last "
                f"error: {last_error}. Fix the cause, then POST /admin/models/{self._label}/reset.",
                code="model_broken",
                retry_after_s=max(1.0, pause_s),
            )
        times = "once" if self._in_row == 1 else f"{self._in_row} times in a row"
        return NotReady(
            f"{self._label} failed {times} and may be tried again in {pause_s:.1f} s; the last error: {last_error}. Retry then.",
            code="load_failed",
            retry_after_s=max(1.0, pause_s),
        )
