"""How fast a job goes, and how long it will go on. Pure: steps and times in, a rate out."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0


class Pace:
    """Steps a second over the last minute. A stage that counts anew, and a pause, begin a new measurement."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, step: int) -> None:
        if self._seen and step < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now_s, step))
        while len(self._seen) > 2 and self._seen[1][0] < now_s - WINDOW_S:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """None until two steps have been seen at different times."""
        if not self._seen:
            return None
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last > first and last_s > first_s else None

    def time_left_s(self, total: int | None) -> float | None:
        rate = self.rate
        return None if rate is None or total is None else max(0.0, (total - self._seen[-1][1]) / rate)
