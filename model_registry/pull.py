"""From a reference to a published version: look up, fetch, import, publish. Owns the order of these steps only.

Runs in the calling thread. However it ends, only a whole version or a download that can be resumed is left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import httpx
from filelock import FileLock, Timeout

from model_registry.artifacts import StagedVariant
from model_registry.catalog import Catalog, load_catalog
from model_registry.conversion import Imported, ImportOptions, run_first
from model_registry.disk import PRIVATE_FILE, make_private_folder, remove_tree, storage_errors, tree_bytes
from model_registry.errors import (
    ChecksumMismatch,
    CorruptModel,
    InvalidReference,
    OutOfDisk,
    SourceUnavailable,
    UnloadableModel,
    UnsupportedModel,
)
from model_registry.folders import check_source
from model_registry.handling import PLAIN, Handling
from model_registry.names import check_model_name, model_name_from
from model_registry.progress import Progress, SilentProgress
from model_registry.records import CANDIDATE, LIVE, Manifest, ModelVersion, Precision
from model_registry.references import (
    CatalogReference,
    FoundryReference,
    HubReference,
    PackagePartsReference,
    PackageReference,
    SourceReference,
    parse_reference,
)
from model_registry.registry import Registry
from model_registry.sources import Fetched, Source, source_for
from model_registry.verification import problems_of

REQUESTED_PRECISION = "requested_precision"  # a manifest parameter: what `--precision` said
REQUESTED = "requested"  # another: what else was asked for, where anything was
# No retry with the same bytes can help: they are bad, or show a defect of ours.
_BAD = (CorruptModel, UnsupportedModel, UnloadableModel, ChecksumMismatch, InvalidReference)
_DEFECTS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RecursionError)
_LIBRARIES = ("slmops", "onnx", "onnxruntime", "gguf", "tokenizers")


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a reference means. name: of the model; licence, sampling: what the catalog says, if it does; alias: which one moves."""

    name: str
    source: SourceReference
    licence: str | None = None
    sampling: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    alias: str = LIVE


def plan_pull(reference: str, name: str | None = None, catalog: Catalog | None = None) -> PullPlan:
    """Raises InvalidReference, InvalidName. Fetches nothing."""
    parsed = parse_reference(reference)
    if isinstance(parsed, CatalogReference):
        entry = (catalog or load_catalog()).entry(parsed)
        return PullPlan(check_model_name(name or entry.name), entry.build(parsed.variant).source, entry.licence, entry.sampling)
    return PullPlan(check_model_name(name or _default_name(parsed)), parsed)


def pull(
    registry: Registry,
    reference: str,
    *,
    name: str | None = None,
    precision: Precision = Precision.AUTO,
    alias: str = LIVE,
    progress: Progress | None = None,
    catalog: Catalog | None = None,
    handling: Handling = PLAIN,
) -> ModelVersion:
    """The version that `reference` is, published as `name` (default: after the reference) unless it is here already.

    alias: which one moves to it where the model has versions already. handling: what is done otherwise than plainly.

    What was not loaded once, though `handling` has a trial, becomes `candidate` where the model has versions already.
    Two pulls of one reference, in any processes, run one after the other, and the second finds the work done.
    Raises any RegistryError; KeyboardInterrupt stops it cleanly.
    """
    plan = replace(plan_pull(reference, name, catalog), alias=alias)
    progress = progress or SilentProgress()
    with one_at_a_time(registry.home, plan.source, progress):
        source = source_for(plan.source, handling)
        with _network_errors_told(plan.source):
            pin = source.pin()
        present = _present(registry, plan, pin, precision, handling)
        if present is not None:
            return present
        with registry.staging() as staging:
            scratch, staged = staging / "scratch", staging / "model"
            scratch.mkdir()
            staged.mkdir()
            with downloads_of(registry.home, plan.source, handling) as downloads:
                fetched = fetch(registry, plan, source, downloads, scratch, progress)
                if handling.prepare is not None:
                    (staging / "prepared").mkdir()
                    fetched = replace(fetched, path=handling.prepare(fetched.path, staging / "prepared", progress))
                return _import(registry, plan, pin, precision, fetched, staged, progress, handling)


def fetch(registry: Registry, plan: PullPlan, source: Source, downloads: Path, scratch: Path, progress: Progress) -> Fetched:
    """A disk that is full before everything is here gets all of its space back."""
    full = storage_errors(registry.home, tree_bytes(downloads), f"fetching {plan.name}")
    try:
        with full, _network_errors_told(plan.source):
            fetched = source.fetch(downloads, scratch, progress)
    except OutOfDisk:
        remove_tree(downloads)
        raise
    check_source(fetched.path)
    return fetched


def _import(
    registry: Registry,
    plan: PullPlan,
    pin: str | None,
    precision: Precision,
    fetched: Fetched,
    staged: Path,
    progress: Progress,
    handling: Handling,
) -> ModelVersion:
    options = ImportOptions(precision=precision, may_link=fetched.is_ours)
    with storage_errors(registry.home, tree_bytes(fetched.path), f"importing {plan.name}"):
        importer, imported = run_first(fetched.path, staged, options, progress, handling.importers)
    _write_sampling(staged, plan.sampling)
    alias = plan.alias
    if handling.trial is not None:
        progress.stage("loading it once")
        if (untried := handling.trial(staged, imported)) is not None:
            imported, alias = replace(imported, warnings=(*imported.warnings, untried)), CANDIDATE
    manifest = _manifest(plan, pin, precision, importer, fetched, imported, handling)
    progress.stage("publishing")
    variant = StagedVariant(imported.precision, imported.provider_family, staged)
    return registry.publish(plan.name, manifest, [variant], alias=alias)


def _write_sampling(folder: Path, sampling: Mapping[str, float]) -> None:
    """The catalog's recommendation, as the file that checkpoints carry for it; a model's own file stays as it is."""
    path = folder / "generation_config.json"
    if sampling and not path.exists():
        path.write_text(json.dumps({"do_sample": True, **sampling}, indent=2) + "\n", encoding="utf-8")


def _manifest(
    plan: PullPlan,
    pin: str | None,
    precision: Precision,
    importer: str,
    fetched: Fetched,
    imported: Imported,
    handling: Handling,
) -> Manifest:
    parameters: dict[str, Any] = {**imported.parameters, REQUESTED_PRECISION: precision.value}
    if handling.requested:
        parameters[REQUESTED] = dict(handling.requested)
    return Manifest(
        source=pin or str(plan.source),
        importer=importer,
        architecture=imported.architecture,
        context_length=imported.context_length,
        licence=plan.licence or fetched.licence or imported.licence or "unknown",
        source_sha256=fetched.source_sha256,
        parameters=parameters,
        metrics=imported.metrics,
        library_versions=_library_versions(handling.libraries),
        warnings=imported.warnings,
    )


def _present(registry: Registry, plan: PullPlan, pin: str | None, precision: Precision, handling: Handling) -> ModelVersion | None:
    """What was pulled from the same source with the same wish: under this name, or published anew from another."""
    if pin is None:
        return None
    same = [
        found
        for model in registry.models()
        for found in reversed(model.versions)
        if found.manifest.source == pin
        and found.manifest.parameters.get(REQUESTED_PRECISION) == precision
        and found.manifest.parameters.get(REQUESTED, {}) == handling.requested
        and plan.source.sha256 in (None, found.manifest.source_sha256)
        and not problems_of(found, hashing=False)
    ]
    here = next((found for found in same if found.model == plan.name), None)
    if here is not None or not same:
        return here
    variants = [StagedVariant(variant.precision, variant.provider_family, variant.folder) for variant in same[0].variants]
    return registry.publish(plan.name, same[0].manifest, variants, alias=plan.alias)


@contextlib.contextmanager
def _network_errors_told(source: SourceReference) -> Iterator[None]:
    """For what sources ask of the network beside downloads."""
    try:
        yield
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise SourceUnavailable(
            f"{source} could not be fetched: {str(error) or type(error).__name__}. "
            "Check the network, the proxy variables and any mirror in use."
        ) from error


@contextlib.contextmanager
def one_at_a_time(home: Path, source: SourceReference, progress: Progress) -> Iterator[None]:
    """Nobody else fetches from this source meanwhile, in any process."""
    locks = make_private_folder(home / "locks")
    lock = FileLock(locks / f"pull-{_key(source)}.lock", mode=PRIVATE_FILE)
    try:
        with storage_errors(locks, 1 << 12, "pulling a model"):
            lock.acquire(timeout=0)
    except Timeout:
        progress.stage("waiting for another pull of the same model")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def downloads_of(home: Path, source: SourceReference, handling: Handling = PLAIN) -> Iterator[Path]:
    """Gone when the block succeeds or what was fetched is bad. Else kept, for the next pull to go on from.

    Another choice of a repository's files has a folder of its own, so that what one left is not taken for the other's.
    """
    choice = f"-{int(handling.wants_checkpoint)}{int(handling.allow_pickle)}"
    folder = home / "downloads" / (_key(source) + (choice if choice != "-00" else ""))
    make_private_folder(folder)
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


def _key(source: SourceReference) -> str:
    return hashlib.sha256(str(source).encode()).hexdigest()[:24]


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


def _library_versions(others: tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for library in (*_LIBRARIES, *others):
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
