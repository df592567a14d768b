"""The builds that one version is made of: the same weights, imported once for each of them. Publishes nothing.

A version gets all of its builds when it is published. A build that is added later makes another version: the digest covers every
file, and what was measured of a version, and the aliases that point to it, must not come to mean other files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from model_registry.artifacts import StagedVariant, check_names
from model_registry.conversion import Imported, Importer, ImportOptions, run_first
from model_registry.progress import Progress
from model_registry.records import Precision

BUILDS = "builds"  # a manifest parameter: what was decided for each build, where a version has several

Trial = Callable[[Path, Imported], str | None]


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A build to be made. importers: the first that can imports it; None: the registry's own importers."""

    precision: Precision = Precision.AUTO
    importers: tuple[Importer, ...] | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """A build in its staging folder. importer: the name of the one that wrote it. untried: why it was not loaded once."""

    folder: Path
    importer: str
    imported: Imported
    untried: str | None = None

    @property
    def variant(self) -> StagedVariant:
        made = self.imported
        return StagedVariant(made.precision, made.provider_family, self.folder, graph=made.graph)


@dataclass(frozen=True, slots=True)
class Builds:
    """All builds of a version to be published, at least one, the preferred first."""

    each: tuple[Build, ...]

    @property
    def variants(self) -> list[StagedVariant]:
        return [build.variant for build in self.each]

    @property
    def is_untried(self) -> bool:
        """Whether a trial took place and could load none of them."""
        return all(build.untried is not None for build in self.each)

    def tried(self, trial: Trial) -> Builds:
        """After each was loaded once, where this machine can. Raises UnloadableModel."""
        return Builds(tuple(replace(build, untried=trial(build.folder, build.imported)) for build in self.each))

    @property
    def importer(self) -> str:
        return self.each[0].importer

    def joined(self) -> Imported:
        """What the manifest records of all. Values that only one can have are the first build's.

        metrics: the first build's by their names, the others' by `<metric>.<variant>`.
        """
        first = self.each[0].imported
        if len(self.each) == 1:
            return replace(first, warnings=self._warnings())
        return replace(
            first,
            context_length=min(build.imported.context_length for build in self.each),
            parameters={BUILDS: {build.variant.name: _parameters(build) for build in self.each}},
            metrics={**first.metrics, **_metrics(self.each[1:])},
            warnings=self._warnings(),
        )

    def _warnings(self) -> tuple[str, ...]:
        said = chain.from_iterable((*build.imported.warnings, build.untried) for build in self.each)
        return tuple(dict.fromkeys(warning for warning in said if warning is not None))


def make_builds(
    requests: Sequence[BuildRequest], path: Path, staging: Path, progress: Progress, *, may_link: bool = False
) -> Builds:
    """One folder in `staging` for each request. may_link: `path`'s files will not change, so builds may be hard links to them.

    Raises what importers raise, and UnsupportedModel when two requests come to the same build.
    """
    made: list[Build] = []
    for number, request in enumerate(requests):
        folder = staging / str(number)
        folder.mkdir()
        options = ImportOptions(precision=request.precision, may_link=may_link)
        importer, imported = run_first(path, folder, options, progress, request.importers)
        made.append(Build(folder, importer, imported))
    builds = Builds(tuple(made))
    check_names(builds.variants)
    return builds


def _parameters(build: Build) -> dict[str, Any]:
    return {"importer": build.importer, **build.imported.parameters}


def _metrics(builds: Sequence[Build]) -> dict[str, float]:
    return {f"{name}.{build.variant.name}": value for build in builds for name, value in build.imported.metrics.items()}
