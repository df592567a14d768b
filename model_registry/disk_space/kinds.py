"""The kinds of files in a home, by the folder that they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class StorageKind(StrEnum):
    """What files in a home are for. Each file belongs to one kind."""

    VERSIONS = "versions"  # published versions of models: blobs, and the folders that link to them
    CHECKPOINTS = "checkpoints"  # weights to train, made once from the source of a version that was pulled
    UPLOADS = "uploads"  # files of clients
    JOBS = "jobs"  # folders of jobs: logs, results, checkpoints
    DOWNLOADS = "downloads"  # what is being fetched, and what is being made of it before it is published
    CACHES = "caches"  # what can be computed again
    EXPORTS = "exports"  # folders that jobs wrote for other programs
    BACKUPS = "backups"  # copies of the home's contents
    OTHER = "other"  # the database, locks, settings, and what slmops does not know


_FOLDERS: Mapping[str, StorageKind] = {
    "blobs": StorageKind.VERSIONS,
    "models": StorageKind.VERSIONS,
    "checkpoints": StorageKind.CHECKPOINTS,
    "files": StorageKind.UPLOADS,
    "jobs": StorageKind.JOBS,
    "downloads": StorageKind.DOWNLOADS,
    "staging": StorageKind.DOWNLOADS,
    "caches": StorageKind.CACHES,
    "exports": StorageKind.EXPORTS,
    "backups": StorageKind.BACKUPS,
}
_BEFORE_A_MIGRATION = ".before-r"  # in the names of copies of the database


def kind_of(name: str) -> StorageKind:
    """name: of an entry of the home's folder."""
    return StorageKind.BACKUPS if _BEFORE_A_MIGRATION in name else _FOLDERS.get(name, StorageKind.OTHER)
