"""Fetching one reference: its source, its lock, its folder of downloads; for a pull, or where a version's source is needed again.

Publishes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from model_registry.disk import PRIVATE_FILE, make_private_folder, remove_tree, sha256_of, storage_errors, tree_bytes
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.reservations import Need
from model_registry.errors import (
    ChecksumMismatch,
    CorruptModel,
    InvalidReference,
    OutOfDisk,
    SourceUnavailable,
    UnloadableModel,
    UnsupportedModel,
)
from model_registry.paths import check_source
from model_registry.progress import Progress
from model_registry.records import ModelVersion
from model_registry.references import CatalogReference, PathReference, SourceReference, parse_reference
from model_registry.registry import Registry
from model_registry.sources import ANY_FILES, Fetched, FileChoice, source_for

# No retry with the same bytes can help: they are bad, or show a defect of ours.
_BAD = (CorruptModel, UnsupportedModel, UnloadableModel, ChecksumMismatch, InvalidReference)
_DEFECTS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RecursionError)


class Fetcher:
    """One reference, to be fetched on the way into the registry of a home."""

    def __init__(self, home: Path, reference: SourceReference, progress: Progress, choice: FileChoice = ANY_FILES) -> None:
        self._home = home
        self._reference = reference
        self._progress = progress
        self._choice = choice
        self._source = source_for(reference, choice)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else fetches this reference meanwhile, in any process."""
        locks = make_private_folder(self._home / "locks")
        lock = FileLock(locks / f"pull-{self._key}.lock", mode=PRIVATE_FILE)
        try:
            with storage_errors(locks, 1 << 12, "pulling a model"):
                lock.acquire(timeout=0)
        except Timeout:
            self._progress.stage("waiting for another pull of the same model")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def pin(self) -> str | None:
        """As `Source.pin`. Raises SourceUnavailable."""
        with self._network_errors():
            return self._source.pin()

    def needs(self, staging: Path) -> list[Need]:
        """The room that the pull needs; nothing where the source does not say. staging: where the model is made."""
        with self._network_errors():
            size = self._source.size()
        if size is None:
            return []
        places = ((StorageKind.DOWNLOADS, size.downloads, self._folder), (StorageKind.VERSIONS, size.scratch + size.model, staging))
        return [Need(kind, num_bytes, str(place.relative_to(self._home))) for kind, num_bytes, place in places if num_bytes]

    @contextlib.contextmanager
    def fetched(self, name: str, scratch: Path) -> Iterator[Fetched]:
        """What the source gives for the model `name`, checked to be files that may be read, until the block ends.

        Raises as `Source.fetch` does. What was downloaded is gone when the block succeeds or what was fetched is bad; else it is
        kept, for the next pull to go on from.
        """
        with self._downloads() as downloads:
            yield self._fetch(name, downloads, scratch)

    def _fetch(self, name: str, downloads: Path, scratch: Path) -> Fetched:
        """A disk that is full before everything is here gets all of its space back."""
        full = storage_errors(self._home, tree_bytes(downloads), f"fetching {name}")
        try:
            with full, self._network_errors():
                fetched = self._source.fetch(downloads, scratch, self._progress)
        except OutOfDisk:
            remove_tree(downloads)
            raise
        check_source(fetched.path)
        return fetched

    @contextlib.contextmanager
    def _downloads(self) -> Iterator[Path]:
        folder = make_private_folder(self._folder)
        try:
            yield folder
        except (*_BAD, *_DEFECTS):
            remove_tree(folder)
            raise
        else:
            remove_tree(folder)
        finally:
            if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
                remove_tree(folder)

    @contextlib.contextmanager
    def _network_errors(self) -> Iterator[None]:
        """For what sources request of the network beside downloads."""
        try:
            yield
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise SourceUnavailable(
                f"{self._reference} could not be fetched: {str(error) or type(error).__name__}. "
                "Check the network, the proxy variables and any mirror in use."
            ) from error

    @property
    def _folder(self) -> Path:
        """Another choice of a repository's files has a folder of its own, so that what one left is not taken for the other's."""
        suffix = f"-{int(self._choice.wants_checkpoint)}{int(self._choice.allow_pickle)}"
        return self._home / "downloads" / (self._key + (suffix if suffix != "-00" else ""))

    @property
    def _key(self) -> str:
        return hashlib.sha256(str(self._reference).encode()).hexdigest()[:24]


def source_of(version: ModelVersion) -> SourceReference:
    """The source of a version. Raises UnsupportedModel if it has none, e.g. if a job made it."""
    try:
        reference = parse_reference(version.manifest.source)
    except InvalidReference:
        reference = CatalogReference("")
    if isinstance(reference, CatalogReference):
        raise UnsupportedModel(f"{version.label} was made from {version.manifest.source!r}, which cannot be fetched again.")
    return reference


def source_to_refetch(version: ModelVersion, *, offline: bool) -> SourceReference:
    """Where its source would be fetched from again. offline: only what is on this machine may be.

    Raises SourceUnavailable when nothing may be fetched, or the path is gone; UnsupportedModel.
    """
    reference = source_of(version)
    if isinstance(reference, PathReference):
        if not reference.path.exists():
            raise SourceUnavailable(
                f"{version.label} was made from {reference.path}, which is gone. Put it back, or pull the model again."
            )
    elif offline:
        raise SourceUnavailable(f"{version.label} would have to be fetched again from {reference}, but `offline` is set.")
    return reference


@contextlib.contextmanager
def refetched(registry: Registry, version: ModelVersion, progress: Progress, *, offline: bool = False) -> Iterator[Path]:
    """The file or folder, until the block ends.

    Raises as `source_to_refetch` does, and SourceUnavailable; ChecksumMismatch when the source holds something else by now.
    """
    reference = source_to_refetch(version, offline=offline)
    fetcher = Fetcher(registry.home, reference, progress)
    with fetcher.alone(), registry.staging() as scratch, fetcher.fetched(version.model, scratch) as fetched:
        expected = version.manifest.source_sha256
        if expected is not None and fetched.path.is_file() and sha256_of(fetched.path) != expected:
            raise ChecksumMismatch(f"{reference} is not what {version.label} was made from any more. Pull the model again.")
        yield fetched.path
