"""What jobs may take. Values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobLimits:
    """max_running: processes at a time. memory_bytes, threads: of each; None and 0 for no limit and all cores.

    max_attempts: in a row without a checkpoint, for failures that may pass; retry_after_s: the waits between them.
    close_grace_s: what a running job gets to leave a checkpoint when the daemon ends. offline: nothing may be fetched.
    max_plans: that are made at a time; plan_memory_bytes: of each one's process, if that is less than memory_bytes.
    """

    max_running: int = 1
    memory_bytes: int | None = None
    threads: int = 0
    max_attempts: int = 3
    retry_after_s: tuple[float, ...] = (2.0, 8.0, 32.0)
    close_grace_s: float = 5.0
    offline: bool = False
    max_plans: int = 2
    plan_memory_bytes: int = 2 << 30

    @property
    def bytes_of_a_plan(self) -> int:
        return min(self.plan_memory_bytes, self.memory_bytes or self.plan_memory_bytes)
