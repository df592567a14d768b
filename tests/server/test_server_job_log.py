"""The end of a job's log is read in bounded memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from server.admin.jobs import end_of

pytestmark = pytest.mark.unit


def test_lines_from_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert end_of(log) == ""
    log.write_bytes(b"one\ntwo \xff\nthree")
    assert end_of(log) == "one\ntwo \ufffd\nthree"
    assert end_of(log, 2) == "two \ufffd\nthree"
    assert end_of(log, 1) == "three"


def test_a_log_too_large_says_what_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(b"a" * 50 + b"\nlast line\n")
    assert end_of(log, max_bytes=20) == "... the first 41 bytes of this log are left out\nlast line\n"
    assert end_of(log, 1, max_bytes=20) == "last line\n"
    log.write_bytes(b"a" * 50)
    assert end_of(log, max_bytes=20).endswith("left out\n" + "a" * 20)


def test_one_endless_line_takes_no_memory(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with log.open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        assert len(end_of(log, 5, max_bytes=1 << 20)) < 2 << 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
