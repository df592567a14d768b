"""One pull: look up, fetch, import, try, publish, under a lock per reference. Owns the order of these steps only.

Runs in the calling thread. However it ends, only a whole version or a download that can be resumed is left behind.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from model_registry.artifacts import StagedVariant
from model_registry.catalog import Catalog
from model_registry.disk import storage_errors, tree_bytes
from model_registry.progress import Progress, SilentProgress
from model_registry.pull.builds import BuildRequest, Builds, make_builds
from model_registry.pull.fetching import Fetcher
from model_registry.pull.options import PLAIN, PullOptions, PullPlan, plan_pull
from model_registry.records import CANDIDATE, LIVE, Manifest, ModelVersion, Precision
from model_registry.registry import Registry
from model_registry.sources import Fetched
from model_registry.verification import problems_of

REQUESTED_PRECISION = "requested_precision"  # a manifest parameter: the value of `--precision`
REQUESTED = "requested"  # another: what else was requested, where anything was
LOADING, PUBLISHING = "loading it once", "publishing"  # stages of a pull, after those of its source and its importer
_LIBRARIES = ("slmops", "onnx", "onnxruntime", "gguf", "tokenizers")


def pull(
    registry: Registry,
    reference: str,
    *,
    name: str | None = None,
    precision: Precision = Precision.AUTO,
    alias: str = LIVE,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
    options: PullOptions = PLAIN,
) -> ModelVersion:
    """The version that `reference` is, published as `name` (default: after the reference) unless it is here already.

    alias: which one moves to it where the model has versions already. Raises as `PullRun.run` does.
    """
    plan = replace(plan_pull(reference, name, catalog), alias=alias)
    return PullRun(registry, plan, precision, options, progress or SilentProgress()).run()


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of a plan on its way. pin: as `Source.pin` gave it."""

    pin: str | None
    fetched: Fetched
    builds: Builds


@dataclass(frozen=True, slots=True)
class PullRun:
    """What is pulled into which registry, and how."""

    registry: Registry
    plan: PullPlan
    precision: Precision
    options: PullOptions
    progress: Progress

    def run(self) -> ModelVersion:
        """The version, found or published.

        A version of which no build was loaded once, though the options have a trial, becomes `candidate` where the model has
        versions already.
        Two pulls of one reference, in any processes, run one after the other, and the second finds the work done.
        Raises any RegistryError; KeyboardInterrupt stops it cleanly.
        """
        fetcher = Fetcher(self.registry.home, self.plan.source, self.progress, self.options.files)
        with fetcher.alone():
            pin = fetcher.pin()
            present = self._present(pin)
            if present is not None:
                return present
            with self.registry.staging() as staging:
                limited = self.registry.disk.limits.are_set
                needs = fetcher.needs(staging) if limited else []
                with self.registry.disk.reserving(needs, f"pulling {self.plan.name}"):
                    return self._made(pin, fetcher, staging)

    def _made(self, pin: str | None, fetcher: Fetcher, staging: Path) -> ModelVersion:
        """staging: an empty folder."""
        scratch, staged = staging / "scratch", staging / "model"
        scratch.mkdir()
        staged.mkdir()
        with fetcher.fetched(self.plan.name, scratch) as fetched:
            builds = self._import(self._prepared(fetched, staging), staged)
            return self._publish(_Result(pin, fetched, builds))

    def _present(self, pin: str | None) -> ModelVersion | None:
        """What was pulled from the same source by the same request: under this name, or published anew from another."""
        if pin is None:
            return None
        versions = [found for model in self.registry.models() for found in reversed(model.versions)]
        same = [found for found in versions if self._is_same(found.manifest, pin) and not problems_of(found, hashing=False)]
        here = next((found for found in same if found.model == self.plan.name), None)
        if here is not None or not same:
            return here
        variants = [StagedVariant.again(variant) for variant in same[0].variants]
        return self.registry.publish(self.plan.name, same[0].manifest, variants, alias=self.plan.alias)

    def _is_same(self, manifest: Manifest, pin: str) -> bool:
        return (
            manifest.source == pin
            and manifest.parameters.get(REQUESTED_PRECISION) == self.precision
            and manifest.parameters.get(REQUESTED, {}) == self.options.requested
            and self.plan.source.sha256 in (None, manifest.source_sha256)
        )

    def _prepared(self, fetched: Fetched, staging: Path) -> Fetched:
        if self.options.prepare is None:
            return fetched
        (folder := staging / "prepared").mkdir()
        return replace(fetched, path=self.options.prepare(fetched.path, folder, self.progress))

    def _import(self, fetched: Fetched, staged: Path) -> Builds:
        """Each build in a folder of its own in `staged`."""
        requests = self.options.builds or (BuildRequest(self.precision),)
        with storage_errors(self.registry.home, tree_bytes(fetched.path), f"importing {self.plan.name}"):
            builds = make_builds(requests, fetched.path, staged, self.progress, may_link=fetched.is_ours)
        for variant in builds.variants:
            _write_sampling(variant.folder, self.plan.sampling)
        return builds

    def _publish(self, result: _Result) -> ModelVersion:
        """Loads each build once where the options say so, and publishes the version."""
        builds, alias = result.builds, self.plan.alias
        if self.options.trial is not None:
            self.progress.stage(LOADING)
            builds = builds.tried(self.options.trial)
            alias = CANDIDATE if builds.is_untried else alias
        manifest = self._manifest(replace(result, builds=builds))
        self.progress.stage(PUBLISHING)
        return self.registry.publish(self.plan.name, manifest, builds.variants, alias=alias)

    def _manifest(self, result: _Result) -> Manifest:
        fetched, imported = result.fetched, result.builds.joined()
        parameters: dict[str, Any] = {**imported.parameters, REQUESTED_PRECISION: self.precision.value}
        if self.options.requested:
            parameters[REQUESTED] = dict(self.options.requested)
        return Manifest(
            source=result.pin or str(self.plan.source),
            importer=result.builds.importer,
            architecture=imported.architecture,
            context_length=imported.context_length,
            licence=self.plan.licence or fetched.licence or imported.licence or "unknown",
            source_sha256=fetched.source_sha256,
            parameters=parameters,
            metrics=imported.metrics,
            library_versions=_library_versions(self.options.libraries),
            warnings=imported.warnings,
            capabilities=imported.capabilities,
        )


def _write_sampling(folder: Path, sampling: Mapping[str, float]) -> None:
    """The catalog's recommendation, as the file that checkpoints carry for it; a model's own file stays as it is."""
    path = folder / "generation_config.json"
    if sampling and not path.exists():
        path.write_text(json.dumps({"do_sample": True, **sampling}, indent=2) + "\n", encoding="utf-8")


def _library_versions(others: tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for library in (*_LIBRARIES, *others):
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
