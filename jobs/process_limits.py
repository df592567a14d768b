"""What a job's process may take: CPU and I/O after everything else, and so much memory, which the system holds it to.

The memory limit is RLIMIT_DATA, of which Windows has none. Linux counts what was reserved, touched or not. Addresses that an engine
reserves for KV rows are hardly ever touched, so they are added to the limit, and a KV budget holds what is used of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

if sys.platform != "win32":
    import resource


NICENESS = 19


def set_limit(num_bytes: int) -> None:
    """Limits the memory of this process from now on; the process itself may change the limit."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def widen(num_bytes: int) -> None:
    """Raises the limit by `num_bytes`, which may be negative. Does nothing when there is no limit."""
    if sys.platform != "win32":
        now = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if now != resource.RLIM_INFINITY:
            set_limit(now + num_bytes)


@contextmanager
def lifted() -> Iterator[None]:
    """Lifts the limit within the block."""
    if sys.platform == "win32":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def lower_priority(memory_bytes: int | None, *, is_idle: bool = True) -> None:
    """Serving goes first: low CPU and I/O priority, first to be ended when memory runs out, and never more than its share.

    is_idle: it computes only while nothing else does; else it gets a small share of busy cores, and so an end.
    """
    process = psutil.Process()
    with contextlib.suppress(psutil.AccessDenied, AttributeError, OSError):
        process.nice((NICENESS if is_idle else NICENESS // 2) if os.name == "posix" else psutil.IDLE_PRIORITY_CLASS)
        if is_idle:
            process.ionice(psutil.IOPRIO_CLASS_IDLE)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            if is_idle:
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            Path("/proc/self/oom_score_adj").write_text("800")
        if memory_bytes is not None:
            set_limit(memory_bytes)
