"""A version's weights as a Hugging Face checkpoint: what training, merging and quantizing begin from, and what they end with.

A version that a job made carries its checkpoint. One that was pulled has it made from its source, once, under
`<home>/checkpoints`. The tokenizer is always the one that is served, so that token ids are the same. PyTorch is imported inside
functions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.task import TaskContext
from model_registry.artifacts import StagedVariant
from model_registry.conversion.formats.checkpoint.importer import CheckpointImporter
from model_registry.conversion.formats.checkpoint.writer import write_checkpoint
from model_registry.conversion.formats.gguf.importer import open_source
from model_registry.conversion.importer import ImportOptions
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.registry_keeper import CHECKPOINT_NAME_CHARS
from model_registry.disk_space.reservations import Need
from model_registry.errors import UnsupportedModel
from model_registry.lora import CONFIG, WEIGHTS
from model_registry.progress import unit_of
from model_registry.pull import refetched
from model_registry.records import ModelVersion, Precision, Variant, VariantRole
from model_registry.staging import hold, staging_folder

FETCHING, BUILDING, REGISTERING = "fetching the weights", "building what is served", "registering"  # stages of several kinds
_TEXTS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")
_NAMING_MODULES = "megatron_config"  # with it, PEFT imports the module that `megatron_core` names
_GROWTH = {  # from a build to its weights in float32
    Precision.FP32: 1.0,
    Precision.FP16: 2.0,
    Precision.INT8: 3.8,
    Precision.INT4: 7.0,
    Precision.MIXED: 5.0,
}
_KEPT = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


class StagedProgress:
    """A registry's `Progress` that reports to a job, and stops with it."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._unit = unit_of("")

    def stage(self, text: str) -> None:
        self._unit = unit_of(text)
        self._context.stage(text)

    def update(self, done: int, total: int | None) -> None:
        self._context.progress(done, total, unit=self._unit)


def materialise(context: TaskContext, label: str) -> Path:
    """A folder with config.json, model.safetensors and the tokenizer. Not to be written to; it stays while this process lives.

    Raises ModelNotFound, SourceUnavailable, ChecksumMismatch, UnsupportedModel, OutOfDisk, Stopped.
    """
    version = context.registry.resolve(label)
    own = version.first(VariantRole.CHECKPOINT)
    if own is not None:
        return own.folder
    folder = checkpoint_folder(context, version)
    if not folder.is_dir():
        context.stage(FETCHING)
    while not hold(folder):  # it may have been removed to make room, a moment ago
        _make(context, version, folder)
    return folder


def checkpoint_folder(context: TaskContext, version: ModelVersion) -> Path:
    """Where the checkpoint of a version is that was pulled, once it was made."""
    return context.registry.home / "checkpoints" / version.digest[:CHECKPOINT_NAME_CHARS]


def served_variant(version: ModelVersion) -> Variant:
    """The build that jobs compute with: the first for the CPU, else the first. Raises UnsupportedModel when there is none."""
    if not version.builds:
        raise UnsupportedModel(f"{version.label} has nothing that can be served.")
    return next((build for build in version.builds if build.provider_family == "cpu"), version.builds[0])


def _make(context: TaskContext, version: ModelVersion, folder: Path) -> None:
    if version.manifest.importer != "gguf":
        raise UnsupportedModel(
            f"{version.label} came as {version.manifest.importer}, which holds no weights to train. Pull the model as a GGUF file."
        )
    build = served_variant(version)
    served, progress = build.folder, StagedProgress(context)
    need = Need(StorageKind.CHECKPOINTS, int(build.size_bytes * _GROWTH[build.precision]))
    with (
        context.registry.disk.reserving([need], f"the checkpoint of {version.label}"),
        staging_folder(context.registry.home / "staging") as staged,
        refetched(context.registry, version, progress, offline=context.offline) as source,
    ):
        context.stage("writing the checkpoint")
        for name in _TEXTS:
            if (served / name).is_file():
                shutil.copyfile(served / name, staged / name)
        bos_id, eos_ids = _ends(served)
        write_checkpoint(open_source(source), staged, bos_id=bos_id, eos_ids=eos_ids)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():  # else another job was faster
            staged.rename(folder)


def _ends(served: Path) -> tuple[int | None, list[int]]:
    """(id that begins a text, ids that end one), as the served model has them."""
    model: dict[str, Any] = json.loads((served / "genai_config.json").read_text(encoding="utf-8"))["model"]
    ends = model["eos_token_id"]
    return model.get("bos_token_id"), ends if isinstance(ends, list) else [ends]


def merged(checkpoint: Path, adapter: Path) -> Any:
    """The base in float32 with the adapter's changes in its weights: W + B A alpha / r, and DoRA's magnitudes."""
    check_plain(adapter)
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, trust_remote_code=False)
    return PeftModel.from_pretrained(base, adapter).merge_and_unload()


def check_plain(adapter: Path) -> None:
    """Raises UnsupportedModel for a configuration that names modules to be imported."""
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.get(_NAMING_MODULES):
        raise UnsupportedModel(f"{adapter.name}'s {CONFIG} names modules to import; merge an adapter without {_NAMING_MODULES}.")


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


@dataclass(frozen=True, slots=True)
class Build:
    """variants: the served one first, then the checkpoint. metrics, parameters: as the importer returns them."""

    variants: tuple[StagedVariant, ...]
    metrics: Mapping[str, float]
    parameters: Mapping[str, Any]
    architecture: str
    context_length: int


def build(context: TaskContext, checkpoint: Path, staging: Path, precision: Precision) -> Build:
    """checkpoint: in `staging`, and becomes a variant. Raises UnsupportedModel, CorruptModel, OutOfDisk, Stopped."""
    context.stage(BUILDING)
    served = staging / "served"
    served.mkdir()
    imported = CheckpointImporter().run(checkpoint, served, ImportOptions(precision), StagedProgress(context))
    variants = (
        StagedVariant(imported.precision, imported.provider_family, served, graph=imported.graph),
        StagedVariant.checkpoint(checkpoint),
    )
    return Build(variants, imported.metrics, imported.parameters, imported.architecture, imported.context_length)


def save_weights(model: Any, base: Path, folder: Path) -> None:
    """model: transformers', of the base's shape. The base's own words on itself stay as they are."""
    model.save_pretrained(folder, safe_serialization=True)
    for name in _KEPT:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
