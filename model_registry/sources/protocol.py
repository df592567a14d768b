"""What a source is: the contract between `pull` and what gets models from somewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from model_registry.progress import Progress

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .()+-]{0,79}")


def licence_of(declared: object, spdx: Mapping[str, str]) -> str:
    """A licence as a server names it: by the SPDX identifier where that is known, `other` for what can be no name of one."""
    text = str(declared)
    return spdx.get(text.lower(), text if _LICENCE.fullmatch(text) else "other")


@dataclass(frozen=True, slots=True)
class FileChoice:
    """Which files of a repository that holds a model in several forms are taken.

    wants_checkpoint: the checkpoint rather than another form. allow_pickle: a checkpoint may be pickles, where it has nothing else.
    """

    wants_checkpoint: bool = False
    allow_pickle: bool = False


ANY_FILES = FileChoice()


@dataclass(frozen=True, slots=True)
class Fetched:
    """path: the file or folder to import. source_sha256: of the source file, if it is one file. licence: None if unknown.

    is_ours: `path` is in the folders that `fetch` was given, so its files may be linked and deleted.
    """

    path: Path
    is_ours: bool
    source_sha256: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class FetchSize:
    """Bytes that a fetch is going to write in `downloads` and in `scratch`, and the size of what comes of it."""

    downloads: int
    scratch: int
    model: int


class Source(Protocol):
    """One reference, ready to be fetched."""

    def pin(self) -> str | None:
        """The reference as it is right now, exactly: equal pins mean equal content. None when only fetching can determine it.

        May use the network. Raises SourceUnavailable.
        """

    def size(self) -> FetchSize | None:
        """Before anything is fetched; None when only fetching can determine it. May use the network. Raises SourceUnavailable."""

    def fetch(self, downloads: Path, scratch: Path, progress: Progress) -> Fetched:
        """Both folders exist. What is in `downloads` survives an interruption and is resumed; `scratch` is thrown away.

        Raises SourceUnavailable, ChecksumMismatch, CorruptModel, OutOfDisk.
        """
