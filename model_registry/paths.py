"""Names, paths and links that others give (servers, archives, graphs, folders): which are safe to use. Opens nothing.

A name must lie inside its folder, pass no link there, and mean one file on every system. Of a foreign folder, plain files may be
read, and links that stay inside it or lead into the hub's cache.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from model_registry.errors import CorruptModel, UnsupportedModel

MAX_PART_BYTES = 240  # file systems take 255; a download's own files add a suffix
MAX_NAME_BYTES = 1024
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789¹²³"
}


def safe_name(name: str, owner: str) -> PurePosixPath:
    """`name` as a path below any folder. owner: who gave it, e.g. `The archive`. Raises CorruptModel."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if ".." in (*posix.parts, *windows.parts) or posix.is_absolute() or windows.drive or windows.root:
        raise CorruptModel(f"{owner} holds the name {name!r}, which leaves its folder. Do not trust it.")
    if fault := _fault(name, posix):
        raise CorruptModel(f"{owner} holds the name {name[:200]!r}, which {fault}. Nothing of it is kept.")
    return posix


def inside(folder: Path, name: str, owner: str) -> Path:
    """The path of the file `name` in `folder`. Raises CorruptModel for an unsafe name, and if a link is on the way."""
    path = folder
    for part in safe_name(name, owner).parts:
        path = path / part
        if path.is_symlink():
            raise CorruptModel(f"{owner} holds the name {name!r}, where {path} is a link. Remove the link, then try again.")
    return path


def check_distinct(names: Iterable[PurePosixPath], owner: str) -> None:
    """Raises CorruptModel if two files are one on a file system that folds case, or if one is another's folder."""
    files: dict[str, str] = {}
    for name in names:
        folded = _folded(name)
        if folded in files:
            raise CorruptModel(f"{owner} holds {files[folded]!r} and {str(name)!r}, which are one file on some systems.")
        files[folded] = str(name)
    for folded, path in files.items():
        if any(str(parent) in files for parent in PurePosixPath(folded).parents):
            raise CorruptModel(f"{owner} holds {path!r} below a file. It is damaged.")


def _folded(name: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(name)).casefold()


def _fault(name: str, posix: PurePosixPath) -> str | None:
    if not posix.parts:
        return "names no file"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "holds control characters"
    if "\\" in name or ":" in name:
        return "holds a backslash or a colon"
    if len(name.encode()) > MAX_NAME_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in posix.parts):
        return "is too long"
    if any(part[-1] in ". " for part in posix.parts):
        return "has a part that ends in a dot or a space"
    if any(part.partition(".")[0].strip().lower() in _DEVICES for part in posix.parts):
        return "is a device's name on Windows"
    return None


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
