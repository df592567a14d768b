"""What a pull is to do: the model that a reference means, and how it is treated on its way in. Values only; fetches nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from model_registry.catalog import Catalog, load_catalog
from model_registry.names import check_model_name, model_name_from
from model_registry.progress import Progress
from model_registry.pull.builds import BuildRequest, Trial
from model_registry.records import LIVE
from model_registry.references import (
    CatalogReference,
    FoundryReference,
    HubReference,
    PackagePartsReference,
    PackageReference,
    SourceReference,
    parse_reference,
)
from model_registry.sources import ANY_FILES, FileChoice

Prepare = Callable[[Path, Path, Progress], Path]


@dataclass(frozen=True, slots=True)
class PullPlan:
    """A resolved reference.

    name: of the model; licence, sampling: from the catalog, if it has them; alias: the one that is moved.
    """

    name: str
    source: SourceReference
    licence: str | None = None
    sampling: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    alias: str = LIVE


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How a pull differs from a plain one.

    builds: what the version is made of, the preferred first; none: one build, by the registry's own importers.
    prepare: (what was fetched, an empty folder, progress) -> what is imported; None: as it was fetched.
    files: which files of a hub repository are taken.
    trial: (an imported folder, what it is) -> None once a model was loaded from it, else why that was not tried. Raises
    UnloadableModel, and then nothing is published. None: it is published untried.
    requested: what else was requested, as JSON values; kept in the manifest, so that the same request finds the version again.
    libraries: installed packages whose versions the manifest has beside the registry's own.
    """

    builds: tuple[BuildRequest, ...] = ()
    prepare: Prepare | None = None
    files: FileChoice = ANY_FILES
    trial: Trial | None = None
    requested: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    libraries: tuple[str, ...] = ()


PLAIN = PullOptions()


def plan_pull(reference: str, name: str | None = None, catalog: Catalog | None = None) -> PullPlan:
    """Raises InvalidReference, InvalidName."""
    parsed = parse_reference(reference)
    if isinstance(parsed, CatalogReference):
        entry = (catalog or load_catalog()).entry(parsed)
        return PullPlan(check_model_name(name or entry.name), entry.build(parsed.variant).source, entry.licence, entry.sampling)
    return PullPlan(check_model_name(name or _default_name(parsed)), parsed)


def _default_name(source: SourceReference) -> str:
    if isinstance(source, HubReference):
        path = PurePosixPath(source.path)
        return model_name_from(path.stem if path.suffix == ".gguf" else source.repo.partition("/")[2])
    if isinstance(source, PackageReference):
        return model_name_from(PurePosixPath(source.path).stem)
    if isinstance(source, PackagePartsReference):
        return model_name_from(PurePosixPath(source.filename).stem)
    if isinstance(source, FoundryReference):
        return model_name_from(source.alias)
    local = source.path
    return model_name_from(local.name if local.is_dir() else local.name.removesuffix(local.suffix).removesuffix(".tar"))
