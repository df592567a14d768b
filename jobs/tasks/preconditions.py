"""What a job needs before it begins, looked for when it is planned: packages, weights to work on, builds that run here.

A plan that is made says that `run` would not be refused for one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from jobs.task import InvalidJob, Problem, TaskContext
from jobs.tasks.checkpoints import FETCHING, checkpoint_folder, served_variant
from model_registry.catalog import load_catalog
from model_registry.errors import SourceUnavailable, UnsupportedModel
from model_registry.pull import source_to_refetch
from model_registry.records import GraphKind, ModelVersion, VariantRole
from model_registry.references import HubReference, PathReference, SourceReference
from runtime.engines.model_folder import BadModelFolder, read_model_folder

TRAINING = ("torch", "transformers", "peft", "trl", "accelerate", "datasets")
MERGING = ("torch", "transformers", "peft")
_BYTES_PER_WEIGHT = 4  # checkpoints are float32


@dataclass(frozen=True, slots=True)
class Weights:
    """What it takes to have a version's weights as a checkpoint; nothing when they are here.

    download_bytes: None when that is not known before.
    """

    summary: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    download_bytes: int | None = 0
    disk_bytes: int = 0


def check_installed(modules: Sequence[str], param: str, extra: str = "tune") -> None:
    """Raises InvalidJob when a package is missing that the job imports. param: what needs it."""
    if missing := [module for module in modules if find_spec(module) is None]:
        message = f"This needs {', '.join(missing)}, which is not installed. Install it with `pip install 'slmops[{extra}]'`."
        raise InvalidJob([Problem(message, param=param, code="missing_package")])


def check_runs_here(version: ModelVersion, param: str) -> None:
    """Raises InvalidJob when slmops' own engine, by which jobs compute, cannot run the version."""
    build = served_variant(version)
    if build.provider_family != "cpu" or build.graph not in (None, GraphKind.GQA):
        message = (
            f"{version.label} has no build that slmops' own engine runs on the CPU. Serve it, and name it as an endpoint where one "
            "is possible."
        )
        raise InvalidJob([Problem(message, param=param, code="unsupported_model")])


def has_chat_template(version: ModelVersion) -> bool:
    """Of the build that jobs compute with. Raises UnsupportedModel."""
    try:
        return read_model_folder(served_variant(version).folder).chat_template is not None
    except BadModelFolder as error:
        raise UnsupportedModel(f"{version.label} cannot be read: {error}.") from None


def weights_of(version: ModelVersion, context: TaskContext, param: str) -> Weights:
    """Raises InvalidJob for what `materialise` would refuse."""
    if version.first(VariantRole.CHECKPOINT) is not None or checkpoint_folder(context, version).is_dir():
        return Weights()
    if version.manifest.importer != "gguf":
        message = f"{version.label} came as {version.manifest.importer}, which holds no weights to train. Pull it as a GGUF file."
        raise InvalidJob([Problem(message, param=param, code="unsupported_model")])
    try:
        source = source_to_refetch(version, offline=context.offline)
    except SourceUnavailable as error:
        raise InvalidJob([Problem(error.message, param=param, code="source_unavailable")]) from None
    size = source_bytes(source)
    weights = served_variant(version).size_bytes * _BYTES_PER_WEIGHT  # of int8 builds; of others it is more than enough
    is_here = isinstance(source, PathReference)
    verb = "Reads the weights of" if is_here else "Downloads the weights of"
    known = "" if size is None else f", {size / 1e6:.1f} MB"
    sentence = f"{verb} {version.label} again, from {source}{known}, and keeps them as a checkpoint of {weights / 1e6:.0f} MB."
    download = 0 if is_here else size
    return Weights((sentence,), (FETCHING,), download, weights + (download or 0))


def source_bytes(source: SourceReference) -> int | None:
    """The size of a model's source, as far as it is known without the network."""
    if isinstance(source, PathReference):
        return source.path.stat().st_size if source.path.is_file() else None
    builds = (build for entry in load_catalog().entries for build in entry.builds)
    return next((build.download_bytes for build in builds if _plain(build.source) == _plain(source)), None)


def _plain(source: SourceReference) -> str:
    """The source without what pins its content: the catalog's and the registered version's pins differ."""
    if isinstance(source, HubReference):
        source = replace(source, revision=None)
    return str(source).partition("#")[0]
