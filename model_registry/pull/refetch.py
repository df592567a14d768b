"""What a version was made from, fetched once more: for work that needs more than what is served. Publishes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from model_registry.disk import sha256_of
from model_registry.errors import ChecksumMismatch, InvalidReference, SourceUnavailable, UnsupportedModel
from model_registry.progress import Progress
from model_registry.pull.fetching import Fetcher
from model_registry.records import ModelVersion
from model_registry.references import CatalogReference, SourceReference, parse_reference
from model_registry.registry import Registry


def source_of(version: ModelVersion) -> SourceReference:
    """Where it came from. Raises UnsupportedModel when that was no source, e.g. for what a job made."""
    try:
        reference = parse_reference(version.manifest.source)
    except InvalidReference:
        reference = CatalogReference("")
    if isinstance(reference, CatalogReference):
        raise UnsupportedModel(f"{version.label} was made from {version.manifest.source!r}, which cannot be fetched again.")
    return reference


@contextlib.contextmanager
def refetched(registry: Registry, version: ModelVersion, progress: Progress, *, offline: bool = False) -> Iterator[Path]:
    """The file or folder, until the block ends.

    Raises SourceUnavailable, also when offline; ChecksumMismatch when the source holds something else by now; UnsupportedModel.
    """
    reference = source_of(version)
    if offline:
        raise SourceUnavailable(f"{version.label} would have to be fetched again from {reference}, but `offline` is set.")
    fetcher = Fetcher(registry.home, reference, progress)
    with fetcher.alone(), registry.staging() as scratch, fetcher.fetched(version.model, scratch) as fetched:
        expected = version.manifest.source_sha256
        if expected is not None and fetched.path.is_file() and sha256_of(fetched.path) != expected:
            raise ChecksumMismatch(f"{reference} is not what {version.label} was made from any more. Pull the model anew.")
        yield fetched.path
