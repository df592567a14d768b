"""What a backup holds, as the first file of its archive lists it. Values only; opens nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

FORMAT = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


class InvalidContents(ValueError):
    """Not the contents of a backup that this release can read. Its text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the home. path: posix, relative to the home; sha256: of its content, in hexadecimal."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """release: the slmops that made it. revision: of its database's tables. created_at: with its zone.

    models: the labels (`name:number`) of its versions, with their sizes in bytes. entries: all files, in the order of the archive.
    warnings: what is not in it that one might look for, in whole sentences.
    """

    release: str
    revision: str
    created_at: datetime
    models: Mapping[str, int]
    entries: tuple[Entry, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)

    def as_json(self) -> bytes:
        plain = asdict(self) | {"format": FORMAT, "created_at": self.created_at.isoformat(), "models": dict(self.models)}
        return json.dumps(plain, indent=1).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Contents:
        """Raises InvalidContents."""
        try:
            plain = json.loads(text)
            if plain["format"] != FORMAT:
                raise InvalidContents(f"it is of format {plain['format']!r}, and this release reads format {FORMAT}")
            return cls(
                release=str(plain["release"]),
                revision=str(plain["revision"]),
                created_at=datetime.fromisoformat(plain["created_at"]),
                models={str(label): int(size) for label, size in plain["models"].items()},
                entries=tuple(_entry(each) for each in plain["entries"]),
                warnings=tuple(map(str, plain["warnings"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InvalidContents):
                raise
            raise InvalidContents(f"its list of files cannot be read ({type(error).__name__})") from error


def _entry(plain: Mapping[str, Any]) -> Entry:
    entry = Entry(str(plain["path"]), str(plain["sha256"]), int(plain["size_bytes"]))
    if not _SHA256.fullmatch(entry.sha256) or entry.size_bytes < 0:
        raise InvalidContents(f"its list of files has no sound entry for {entry.path[:200]!r}")
    return entry
