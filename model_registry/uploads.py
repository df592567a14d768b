"""Files that clients uploaded: rows of the registry's database, contents under `<home>/files/<id>/`."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, TypeVar

from sqlalchemy import RowMapping, insert, select

from model_registry.database import Database
from model_registry.disk import make_private_folder, open_private, storage_failure
from model_registry.disk_space.spare import room_to_delete
from model_registry.errors import RegistryError
from model_registry.schema import files, from_column, to_column

_PIECE_BYTES = 1 << 20
T = TypeVar("T")
Room = Callable[[int, str], AbstractContextManager[None]]
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


class FileNotKnown(RegistryError):
    """No file has this id."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """id: `file-` and letters. Times are UTC; expires_at: None for never. path: of its content, which does not change.

    owner: id of the principal that uploaded it; None when that was before there were keys.
    """

    id: str
    purpose: str
    filename: str
    sha256: str
    size_bytes: int
    created_at: datetime
    expires_at: datetime | None
    path: Path
    owner: str | None = None


class FileStore:
    """The files of a home. Thread safe. Writes wait for other writers as long as the database says, then RegistryBusy.

    writes: what runs the transactions, while the caller's thread copies contents and waits; None: the caller's thread runs them.
    room: reserves room for an upload of this size in this folder (relative to the home) in its block; raises OutOfDisk.
    owner, where files are read or removed: only this owner's exist for the caller; None: everybody's do.

    A file that has expired exists no longer; its content is removed by the collection (`upload_keeper`), once no job needs it.
    """

    def __init__(self, database: Database, writes: Executor | None = None, room: Room | None = None) -> None:
        self._database = database
        self._writes = writes
        self._room = room
        self._folder = database.home / "files"

    def add(
        self, content: BinaryIO, filename: str, purpose: str, expires_after_s: int | None = None, owner: str | None = None
    ) -> StoredFile:
        """Copies the content in pieces; nothing stays behind when that fails. filename: of which the last part counts.

        Raises OutOfDisk, NotWritable, RegistryBusy.
        """
        filename = filename.replace("\\", "/").rpartition("/")[2] or "upload"
        id_ = f"file-{secrets.token_hex(12)}"
        if self._room is None:
            return self._copy(content, id_, filename, purpose, expires_after_s, owner)
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        with self._room(size, f"files/{id_}"):
            return self._copy(content, id_, filename, purpose, expires_after_s, owner)

    def _copy(
        self, content: BinaryIO, id_: str, filename: str, purpose: str, expires_after_s: int | None, owner: str | None
    ) -> StoredFile:
        folder = self._folder / id_
        path = folder / _safe(filename)
        now = datetime.now(UTC)
        digest, size = hashlib.sha256(), 0
        try:
            make_private_folder(folder)
            with open_private(path, "xb") as file:
                while piece := content.read(_PIECE_BYTES):
                    digest.update(piece)
                    size += file.write(piece)
            expires = None if expires_after_s is None else now + timedelta(seconds=expires_after_s)
            stored = StoredFile(id_, purpose, filename, digest.hexdigest(), size, now, expires, path, owner)
            self._write(self._insert, stored)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError) and (failure := storage_failure(error, self._folder, size, "keeping an uploaded file")):
                raise failure from error
            raise
        return stored

    def get(self, id_: str, owner: str | None = None) -> StoredFile:
        """Raises FileNotKnown, also for one that expired."""
        found = next((each for each in self.find(owner=owner) if each.id == id_), None)
        if found is None:
            raise FileNotKnown(f"There is no file {id_!r} here. Upload it, or list what there is.")
        return found

    def find(self, purpose: str | None = None, owner: str | None = None) -> list[StoredFile]:
        """The newest first."""
        return [each for each in self._all() if purpose in (None, each.purpose) and owner in (None, each.owner)]

    def content_of(self, id_: str) -> Path:
        """Of a file that may have expired, for the jobs that were created with it. Raises FileNotKnown."""
        found = next((each for each in self.everything() if each.id == id_), None)
        return self.get(id_).path if found is None else found.path

    def remove(self, id_: str, owner: str | None = None) -> None:
        """Raises FileNotKnown. Works on a full disk."""
        self.get(id_, owner)
        self.forget([id_])

    def everything(self) -> list[StoredFile]:
        """The files of all owners, with those that have expired and are not removed yet. The newest first."""
        if not self._database.exists():
            return []
        query = select(files).order_by(files.c.created_at.desc(), files.c.id.desc())
        with self._database.reading() as reader:
            return [self._file(row) for row in reader.execute(query).mappings()]

    def forget(self, ids: list[str]) -> None:
        """Removes these files, expired or not."""
        with room_to_delete(self._database.home):
            self._write(self._delete, ids)
            for id_ in ids:
                shutil.rmtree(self._folder / id_, ignore_errors=True)

    def _all(self) -> list[StoredFile]:
        """The files that have not expired."""
        now = datetime.now(UTC)
        return [each for each in self.everything() if each.expires_at is None or each.expires_at > now]

    def _insert(self, stored: StoredFile) -> None:
        with self._database.writing() as connection:
            connection.execute(insert(files), [_row(stored)])

    def _delete(self, ids: list[str]) -> None:
        with self._database.writing() as connection:
            connection.execute(files.delete().where(files.c.id.in_(ids)))

    def _write(self, change: Callable[[T], None], given: T) -> None:
        if self._writes is None:
            change(given)
        else:
            self._writes.submit(change, given).result()

    def _file(self, row: RowMapping) -> StoredFile:
        created, expires = from_column(row["created_at"]), from_column(row["expires_at"])
        path = self._folder / row["id"] / _safe(row["filename"])
        known = (row["id"], row["purpose"], row["filename"], row["sha256"], row["size_bytes"])
        return StoredFile(*known, created, expires, path, row["owner"])


def _row(stored: StoredFile) -> dict[str, object]:
    expires = stored.expires_at
    return {
        "id": stored.id,
        "purpose": stored.purpose,
        "filename": stored.filename,
        "sha256": stored.sha256,
        "size_bytes": stored.size_bytes,
        "created_at": to_column(stored.created_at),
        "expires_at": to_column(expires),
        "owner": stored.owner,
    }


def _safe(filename: str) -> str:
    """A name for the content that no file system minds."""
    return _UNSAFE.sub("_", filename)[-100:].lstrip(".") or "content"
