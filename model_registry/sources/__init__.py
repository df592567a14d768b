"""The choice of a source for a reference. Knows which file fetches which kind, not how."""

from __future__ import annotations

from model_registry.references import (
    FoundryReference,
    HubReference,
    PackagePartsReference,
    PackageReference,
    SourceReference,
)
from model_registry.sources.protocol import ANY_FILES, Fetched, FileChoice, Source

__all__ = ["ANY_FILES", "Fetched", "FileChoice", "Source", "source_for"]


def source_for(reference: SourceReference, choice: FileChoice = ANY_FILES) -> Source:
    """What can fetch `reference`; its libraries load with it. choice: among the files of a hub repository."""
    if isinstance(reference, HubReference):
        from model_registry.sources.hub import HubSource

        return HubSource(reference, choice)
    if isinstance(reference, PackageReference):
        from model_registry.sources.package_index import PackageIndexSource

        return PackageIndexSource(reference)
    if isinstance(reference, PackagePartsReference):
        from model_registry.sources.package_index import PackagePartsSource

        return PackagePartsSource(reference)
    if isinstance(reference, FoundryReference):
        from model_registry.sources.foundry import FoundrySource

        return FoundrySource(reference)
    from model_registry.sources.folder import FolderSource

    return FolderSource(reference)
