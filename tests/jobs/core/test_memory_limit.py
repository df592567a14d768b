"""The limit of a process's memory, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.api

PROGRAM = """
import mmap
from jobs.process_limits import lifted, set_limit, widen
def takes(size):
    try:
        return bool(bytearray(size))
    except MemoryError:
        return False
set_limit(1 << 30)
with lifted():
    region = mmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
print(takes(64 << 20))
widen(8 << 30)
print(takes(64 << 20), takes(2 << 30))
region.close()
widen(-8 << 30)
print(takes(64 << 20), takes(2 << 30))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts reserved memory")
def test_a_reservation_is_added_to_the_limit_and_what_is_used_is_held() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True", "False", "True", "False"]
