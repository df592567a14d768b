"""Which files of a foreign folder may be read: plain ones, and links that stay inside it. Opens nothing.

    folder/file -> other file of the folder                                      accepted
    models--ORG--NAME/snapshots/REV/file -> models--ORG--NAME/blobs/DIGEST       accepted: the hub's cache
    file -> anywhere else; a linked folder; a pipe, socket or device             refused

Hidden folders (`.git`, `.cache`) are not looked into, and nothing in them is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from model_registry.errors import CorruptModel, UnsupportedModel

MAX_FILES = 20_000


def check_source(path: Path) -> None:
    """A file or folder that is to be imported. Raises CorruptModel for what may not be read, UnsupportedModel for too much."""
    if path.is_dir():
        for number, file in enumerate(_files(path)):
            if number >= MAX_FILES:
                raise UnsupportedModel(f"{path} holds more than {MAX_FILES} files. Name the model's own folder.")
            check_file(file, path)
    else:
        check_file(path, path.parent)


def check_file(file: Path, folder: Path) -> None:
    """One file of `folder`. Raises CorruptModel."""
    if file.is_symlink():
        target = Path(os.path.realpath(file))
        if not any(target.is_relative_to(root) for root in _roots(folder)):
            raise CorruptModel(
                f"{file} is a link to {target}, outside the model's folder. Put the file itself there, or remove the link."
            )
        if target.is_dir():
            raise CorruptModel(f"{file} is a link to a folder. Put the folder itself there, or remove the link.")
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise CorruptModel(f"{file} cannot be read ({error.strerror}). Put the file itself there, or remove it.") from error
    if not stat.S_ISREG(mode):
        raise CorruptModel(f"{file} is a pipe, a socket or a device, not a file. Remove it, or name another model.")


def _files(folder: Path) -> Iterator[Path]:
    """All but those in hidden folders; linked folders as themselves."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if not entry.name.startswith("."):
                yield from _files(entry)
        else:
            yield entry


def _roots(folder: Path) -> Iterator[Path]:
    real = Path(os.path.realpath(folder))
    yield real
    for snapshots in real.parents:
        if snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
            yield snapshots.parent / "blobs"
