"""The end of a job's log, however large the file is: so many lines, and at most so many bytes, are read."""

from __future__ import annotations

import os
from pathlib import Path

MAX_LINES = 1_000_000
MAX_BYTES = 16 << 20


def end_of(log: Path, num_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> str:
    """Its last lines; a first line says when the beginning was left out for its size. Empty when there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = file.seek(max(0, size - max_bytes))
            content = file.read(max_bytes)
    except FileNotFoundError:
        return ""
    note = b"" if begin == 0 else f"... the first {begin} bytes of this log are left out\n".encode()
    if begin:
        content = content.partition(b"\n")[2] or content
    lines = content.splitlines(keepends=True)
    if len(lines) >= num_lines:
        lines, note = lines[-num_lines:], b""
    return (note + b"".join(lines)).decode("utf-8", errors="replace")
