"""A version's weights as a Hugging Face checkpoint: what training, merging and quantizing begin from.

A version that a job made carries its checkpoint. One that was pulled has it made from its source, once, under
`<home>/checkpoints`. The tokenizer is always the one that is served, so that token ids are the same.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jobs.tasks.convert import StagedProgress
from jobs.tasks.protocol import TaskContext
from model_registry.conversion.formats.checkpoint.writer import write_checkpoint
from model_registry.conversion.formats.gguf.importer import open_source
from model_registry.errors import UnsupportedModel
from model_registry.pull import refetched
from model_registry.records import CHECKPOINT, NOT_SERVED, ModelVersion, Variant
from model_registry.registry import CHECKPOINT_NAME_CHARS
from model_registry.staging import staging_folder

_TEXTS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


def materialise(context: TaskContext, label: str) -> Path:
    """A folder with config.json, model.safetensors and the tokenizer. Not to be written to.

    Raises ModelNotFound, SourceUnavailable, ChecksumMismatch, UnsupportedModel, OutOfDisk, Stopped.
    """
    version = context.registry.resolve(label)
    own = next((variant for variant in version.variants if variant.provider_family == CHECKPOINT), None)
    if own is not None:
        return own.folder
    folder = context.registry.home / "checkpoints" / version.digest[:CHECKPOINT_NAME_CHARS]
    if not folder.is_dir():
        _make(context, version, folder)
    return folder


def served_variant(version: ModelVersion) -> Variant:
    """The first that can be loaded. Raises UnsupportedModel."""
    for variant in version.variants:
        if variant.provider_family not in NOT_SERVED:
            return variant
    raise UnsupportedModel(f"{version.label} has nothing that can be served.")


def _make(context: TaskContext, version: ModelVersion, folder: Path) -> None:
    if version.manifest.importer != "gguf":
        raise UnsupportedModel(
            f"{version.label} came as {version.manifest.importer}, which holds no weights to train. Pull the model as a GGUF file."
        )
    served = served_variant(version).folder
    progress = StagedProgress(context)
    with (
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
