"""Making a backup: what belongs to it is linked at one moment, under the registry's lock, and written to the archive after that.

So a daemon goes on serving, and what is removed while the archive is written is in it all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from model_registry.backup import rows
from model_registry.backup.archive import write_archive
from model_registry.backup.contents import Contents, Entry
from model_registry.database import DATABASE_NAME, Database
from model_registry.disk import link_or_copy, open_private, require_free, sha256_of, storage_errors, sync_folder
from model_registry.errors import CorruptModel, RegistryError
from model_registry.paths import safe_name
from model_registry.progress import Progress
from model_registry.records import ModelVersion
from model_registry.registry import Registry
from model_registry.schema import HEAD


@dataclass(frozen=True, slots=True)
class Backup:
    """damaged: labels of versions with files whose content is not what their checksum says; they are in it as they are."""

    contents: Contents
    damaged: tuple[str, ...]


class BackupExists(RegistryError):
    """A file of this name is there already."""


def back_up(
    database: Database,
    target: IO[bytes],
    progress: Progress,
    *,
    release: str,
    with_jobs: bool = True,
    folder: Path | None = None,
) -> Backup:
    """Writes models, evaluations, keys, uploads and, with_jobs, the jobs that have ended, with their files.

    release: of slmops. folder: where the target lies, if it is a file; that there is room is checked before it is written.
    Left out: what can be made or fetched again (checkpoints that jobs keep, downloads, exports), and jobs that have not ended.
    Raises RegistryBusy, OutOfDisk, NotWritable.
    """
    registry = Registry(database)
    with registry.staging() as staging:
        progress.stage("collecting what belongs to the backup")
        collected = _Collection(registry, staging)
        with database.exclusive():
            collected.collect(with_jobs=with_jobs)
        contents = collected.contents(release)
        if folder is not None:
            require_free(folder, contents.size_bytes, "writing the backup")
        damaged = {entry.path for entry in write_archive(target, contents, staging, progress)}
        labels = [version.label for version in collected.versions if damaged & set(map(_blob_path, _digests(version)))]
        return Backup(contents, tuple(labels))


def back_up_to(database: Database, path: Path, progress: Progress, *, release: str, with_jobs: bool = True) -> Backup:
    """As `back_up`, to a file that is there whole or not at all, readable by this user only. Raises BackupExists too."""
    beside = path.with_name(f"{path.name}.part")
    try:
        with storage_errors(path.parent, 1 << 20, f"writing {path}"):
            if path.exists():
                raise BackupExists(f"{path} is there already. Choose another name, or remove it.")
            with open_private(beside, "wb") as file:
                made = back_up(database, file, progress, release=release, with_jobs=with_jobs, folder=path.parent)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
            sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)
    return made


class _Collection:
    """Links in `folder` to what belongs to a backup, and the list of it."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self._registry = registry
        self._folder = folder
        self._entries: list[Entry] = []
        self._warnings: list[str] = []
        self.versions: tuple[ModelVersion, ...] = ()

    def collect(self, *, with_jobs: bool) -> None:
        """The database first: whatever it names is there afterwards, but for uploads that a client deletes at this very moment."""
        with self._registry.database.copied_to(self._folder) as copy:
            if not with_jobs:
                rows.drop_jobs(copy)
            models = Registry(copy).models()
            self.versions = tuple(version for model in models for version in model.versions)
            for version in self.versions:
                self._add_version(version)
            gone = [upload.id for upload in rows.uploads(copy) if not self._add_upload(upload)]
            rows.drop_uploads(copy, gone)
            unfinished = rows.drop_unfinished_jobs(copy)
            for id_ in rows.job_ids(copy):
                self._add_job(id_)
        if unfinished:
            self._warnings.append(f"Jobs that had not ended are not in the backup: {', '.join(unfinished)}.")

    def contents(self, release: str) -> Contents:
        path = self._folder / DATABASE_NAME
        database = Entry(DATABASE_NAME, sha256_of(path), path.stat().st_size)
        return Contents(
            release=release,
            revision=HEAD,
            created_at=datetime.now(UTC),
            models={version.label: version.size_bytes for version in self.versions},
            entries=(database, *self._entries),
            warnings=tuple(self._warnings),
        )

    def _add_version(self, version: ModelVersion) -> None:
        for variant in version.variants:
            for artifact in variant.artifacts:
                path = _blob_path(artifact.sha256)
                if (self._folder / path).exists():  # versions share files
                    continue
                places = (self._registry.home / path, self._registry.home / "models" / version.model / str(version.number))
                source = places[0] if places[0].exists() else places[1] / variant.name / artifact.path
                if not self._link(source, path):
                    self._warnings.append(f"{version.label} is damaged: {variant.name}/{artifact.path} is missing.")
                    continue
                self._entries.append(Entry(path, artifact.sha256, (self._folder / path).stat().st_size))

    def _add_upload(self, upload: rows.Upload) -> bool:
        """Whether it is there."""
        folder = self._registry.home / "files" / upload.id
        files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
        if len(files) != 1 or not self._link(files[0], name := f"files/{upload.id}/{files[0].name}"):
            return False
        self._entries.append(Entry(name, upload.sha256, upload.size_bytes))
        return True

    def _add_job(self, id_: str) -> None:
        for path in _plain_files(self._registry.home / "jobs" / id_):
            name = path.relative_to(self._registry.home).as_posix()
            try:
                safe_name(name, "The job")
            except CorruptModel:
                self._warnings.append(f"The file {name!r} is not in the backup, because its name is not possible everywhere.")
                continue
            if self._link(path, name):
                linked = self._folder / name
                self._entries.append(Entry(name, sha256_of(linked), linked.stat().st_size))

    def _link(self, source: Path, name: str) -> bool:
        """Whether the source was there."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            link_or_copy(source, target)
        except FileNotFoundError:
            return False
        return True


def _plain_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _digests(version: ModelVersion) -> list[str]:
    return [artifact.sha256 for variant in version.variants for artifact in variant.artifacts]


def _blob_path(sha256: str) -> str:
    return f"blobs/sha256/{sha256[:2]}/{sha256}"
