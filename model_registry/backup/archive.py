"""A backup's archive: an uncompressed tar whose first file lists the others with their sizes and hashes, in their order.

It is written and read from its start to its end, so that it may come through a pipe. What is read is not trusted: it must be
exactly what the list promises, and the list may name files of a home's own folders only.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from model_registry.backup.contents import Contents, Entry, InvalidContents
from model_registry.database import DATABASE_NAME
from model_registry.disk import CHUNK_BYTES, open_private
from model_registry.errors import CorruptModel, RegistryError
from model_registry.paths import check_distinct, inside, safe_name
from model_registry.progress import Progress

LIST_NAME = "backup.json"
FOLDERS = ("blobs/sha256/", "files/", "jobs/")  # of a home, whose files a backup may have
_MAX_LIST_BYTES = 256 << 20
_OWNER = "The backup"
_DAMAGED = (tarfile.TarError, EOFError, UnicodeError)


class CorruptBackup(RegistryError):
    """Damaged, incomplete, or not a backup."""


def write_archive(target: IO[bytes], contents: Contents, folder: Path, progress: Progress) -> list[Entry]:
    """Writes the files, which lie under `folder`. Returns the entries whose content is not what they say; they are written too."""
    progress.stage("writing the backup")
    damaged = []
    done = 0
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        text = contents.as_json()
        tar.addfile(_member(LIST_NAME, len(text)), io.BytesIO(text))
        for entry in contents.entries:
            with (folder / entry.path).open("rb") as file:
                hashed = _Hashed(file)
                tar.addfile(_member(entry.path, entry.size_bytes), hashed)
            if hashed.hexdigest() != entry.sha256:
                damaged.append(entry)
            done += entry.size_bytes
            progress.update(done, contents.size_bytes)
    return damaged


def read_contents(source: IO[bytes]) -> Contents:
    """What the backup holds; reads its beginning only. Raises CorruptBackup."""
    with _reading(source) as tar:
        return _contents(tar)


def unpack(source: IO[bytes], folder: Path, progress: Progress, require_room: Callable[[int], None]) -> Contents:
    """Unpacks everything into the empty `folder`, each file checked. require_room: called with the number of bytes before any is
    written. Raises CorruptBackup, what require_room raises, and what writing raises.
    """
    with _reading(source) as tar:
        contents = _contents(tar)
        _check(contents)
        require_room(contents.size_bytes)
        progress.stage("reading the backup")
        done = 0
        for entry in contents.entries:
            _unpack(tar, entry, folder)
            done += entry.size_bytes
            progress.update(done, contents.size_bytes)
        return contents


@contextlib.contextmanager
def _reading(source: IO[bytes]) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            yield tar
    except _DAMAGED as error:
        raise CorruptBackup(f"This is no backup of slmops, or it is cut off ({error}). Nothing of it was kept.") from error


def _contents(tar: tarfile.TarFile) -> Contents:
    first = tar.next()
    if first is None or first.name != LIST_NAME or not first.isreg() or first.size > _MAX_LIST_BYTES:
        raise CorruptBackup(f"This is no backup of slmops: its first file is not {LIST_NAME}.")
    try:
        return Contents.from_json(_content(tar, first).read())
    except InvalidContents as error:
        raise CorruptBackup(f"The backup cannot be used: {error}.") from error


def _check(contents: Contents) -> None:
    """The listed names are safe, distinct, and of folders that a backup has. Raises CorruptBackup."""
    try:
        names = [safe_name(entry.path, _OWNER) for entry in contents.entries]
        check_distinct(names, _OWNER)
    except CorruptModel as error:
        raise CorruptBackup(error.message) from error
    for name in map(str, names):
        if name != DATABASE_NAME and not name.startswith(FOLDERS):
            raise CorruptBackup(f"{_OWNER} holds {name!r}, which is no file of a backup. Do not trust it.")
    if DATABASE_NAME not in map(str, names):
        raise CorruptBackup(f"{_OWNER} has no {DATABASE_NAME}. It cannot be used.")


def _unpack(tar: tarfile.TarFile, entry: Entry, folder: Path) -> None:
    member = tar.next()
    if member is None or member.name != entry.path or not member.isreg() or member.size != entry.size_bytes:
        found = "ends" if member is None else f"has {member.name[:200]!r}"
        raise CorruptBackup(f"The backup is damaged: where it should have {entry.path!r}, it {found}. Nothing of it was kept.")
    path = inside(folder, entry.path, _OWNER)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    content = _content(tar, member)
    with open_private(path, "xb") as file:
        while piece := content.read(CHUNK_BYTES):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != entry.sha256:
        raise CorruptBackup(f"The backup is damaged: {entry.path!r} has not the content that it should have. Nothing was kept.")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # it is a regular file
    return content


def _member(name: str, size_bytes: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size_bytes
    member.mode = 0o600
    return member


class _Hashed(io.RawIOBase):
    """Hashes a file as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._digest.update(piece)
        return piece

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
