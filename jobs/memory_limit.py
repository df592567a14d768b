"""The most memory that a job's process may take, held by the system (RLIMIT_DATA). Nothing on Windows.

Linux counts what was asked for, touched or not. Addresses that an engine reserves for KV rows are hardly ever touched, so they are
added to the limit, and a KV budget holds what is used of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

if sys.platform != "win32":
    import resource


def set_limit(num_bytes: int) -> None:
    """For this process, from now on; may be changed by the process itself."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def widen(num_bytes: int) -> None:
    """By so many bytes, negative to narrow it; nothing when there is no limit."""
    if sys.platform != "win32":
        now = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if now != resource.RLIM_INFINITY:
            set_limit(now + num_bytes)


@contextmanager
def lifted() -> Iterator[None]:
    """No limit within the block."""
    if sys.platform == "win32":
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
