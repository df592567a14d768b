"""Whether a worker hangs: a step or a preparation that takes too long, or no sign of life. Looked at once a second; only decides.

Silence is counted in looks, not in seconds: when the gateway itself was stopped for a minute (a suspended laptop), its workers'
messages were not read, though they were sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.protocol.messages import Heartbeat

LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """step_s: the longest that a step, or the preparation of one request, may take. silent_looks: how many looks in a row may find
    nothing new."""

    step_s: float = 60.0
    silent_looks: int = 15


class Watchdog:
    """silent_steps: the worker may be silent for as long as a step may take."""

    def __init__(self, patience: Patience, *, silent_steps: bool = False) -> None:
        self._patience = patience
        self._most_silent_s = max(patience.silent_looks * LOOK_EVERY_S, patience.step_s if silent_steps else 0.0)
        self._silent_looks = 0
        self._step_s = 0.0
        self._preparing: int | None = None
        self._preparing_s = 0.0

    def message_received(self, heartbeat: Heartbeat | None = None) -> None:
        """The worker sent a message.

        None: a message other than a heartbeat, which proves that no step hangs, but nothing about preparations.
        """
        self._silent_looks = 0
        self._step_s = 0.0 if heartbeat is None else heartbeat.step_s
        if heartbeat is not None:
            self._preparing, self._preparing_s = heartbeat.preparing, heartbeat.preparing_s

    @property
    def unprepared(self) -> int | None:
        """The request whose preparation takes too long; None: none does."""
        return self._preparing if self._preparing_s > self._patience.step_s else None

    def look(self) -> str | None:
        """Why the worker must be ended; None while all is well."""
        self._silent_looks += 1
        if self._step_s > self._patience.step_s:
            return f"a step took longer than {self._patience.step_s:g} s"
        if self._preparing_s > self._patience.step_s:
            return f"the preparation of a request took longer than {self._patience.step_s:g} s"
        if self._silent_looks * LOOK_EVERY_S > self._most_silent_s:
            return f"it gave no sign of life for {self._silent_looks * LOOK_EVERY_S:g} s"
        return None
