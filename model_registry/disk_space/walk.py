"""The files below a home, with what each takes of the disk. Knows no kinds and no database.

Files that vanish meanwhile are left out, and so is what may not be read. Symbolic links count by themselves, not by their target.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK_BYTES = 512  # the unit of `st_blocks`, whatever the file system's own block is
_KEPT_PARTS = 4  # of a path: enough to know whose file it is


@dataclass(frozen=True, slots=True)
class FoundFile:
    """parts: the first names of its path from the home on, at most four. inode: the same for every name of one file.

    used_bytes: allocated on the disk, which differs from the length of files with holes and of compressed ones.
    num_links: how many names it has, also outside the home.
    """

    parts: tuple[str, ...]
    inode: tuple[int, int]
    used_bytes: int
    num_links: int


def walk(home: Path) -> Iterator[FoundFile]:
    """Every file below `home`; nothing if there is no such folder."""
    pending: list[tuple[str, tuple[str, ...]]] = [(str(home), ())]
    while pending:
        folder, parts = pending.pop()
        try:
            entries = os.scandir(folder)
        except OSError:
            continue
        with entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                below = (*parts, entry.name) if len(parts) < _KEPT_PARTS else parts
                if stat.S_ISDIR(status.st_mode):
                    pending.append((entry.path, below))
                else:
                    yield FoundFile(below, (status.st_dev, status.st_ino), allocated_bytes(status), status.st_nlink)


def allocated_bytes(status: os.stat_result) -> int:
    """What a file takes of the disk; its length where the system does not say."""
    blocks: int | None = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else blocks * _BLOCK_BYTES
