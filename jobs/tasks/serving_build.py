"""From weights in memory or on disk to what a version is made of: a checkpoint, and the build that is served."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.tasks.convert import StagedProgress
from jobs.tasks.protocol import TaskContext
from model_registry.artifacts import StagedVariant
from model_registry.conversion.formats.checkpoint.importer import CheckpointImporter
from model_registry.conversion.importer import ImportOptions
from model_registry.records import CHECKPOINT, Precision

_KEPT = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class Build:
    """variants: what is served first, then the checkpoint. metrics, parameters: as the importer tells them."""

    variants: tuple[StagedVariant, ...]
    metrics: Mapping[str, float]
    parameters: Mapping[str, Any]
    architecture: str
    context_length: int


def build(context: TaskContext, checkpoint: Path, staging: Path, precision: Precision) -> Build:
    """checkpoint: in `staging`, and becomes a variant. Raises UnsupportedModel, CorruptModel, OutOfDisk, Stopped."""
    served = staging / "served"
    served.mkdir()
    imported = CheckpointImporter().run(checkpoint, served, ImportOptions(precision), StagedProgress(context))
    variants = (
        StagedVariant(imported.precision, imported.provider_family, served),
        StagedVariant(Precision.FP32, CHECKPOINT, checkpoint),
    )
    return Build(variants, imported.metrics, imported.parameters, imported.architecture, imported.context_length)


def save_weights(model: Any, base: Path, folder: Path) -> None:
    """model: transformers', of the base's shape. The base's own words on itself stay as they are."""
    model.save_pretrained(folder, safe_serialization=True)
    for name in _KEPT:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
