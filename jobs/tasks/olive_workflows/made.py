"""What a workflow made, as variants that can be registered; or the reason why it stays a file. Imports nothing of Olive's."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.tasks.adapters import is_adapter, merged
from jobs.tasks.conversion.measuring import quality
from jobs.tasks.conversion.pickles import is_checkpoint
from jobs.tasks.convert import StagedProgress
from jobs.tasks.protocol import TaskContext
from jobs.tasks.serving_build import build, save_weights
from model_registry.artifacts import StagedVariant
from model_registry.conversion.formats.onnx.genai_config import GraphKind
from model_registry.conversion.formats.onnx.importer import GENAI_CONFIG, OnnxFolderImporter
from model_registry.conversion.importer import ImportOptions
from model_registry.errors import UnsupportedModel
from model_registry.records import ADAPTER, Precision

_KEPT = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})


@dataclass(frozen=True, slots=True)
class Made:
    """One model that Olive made, where it lies. adapter: beside a checkpoint. metrics: Olive's own, by name."""

    path: Path
    adapter: Path | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.path if self.path.is_dir() else self.path.parent


@dataclass(frozen=True, slots=True)
class Servable:
    """As `Output` takes it."""

    variants: tuple[StagedVariant, ...]
    architecture: str
    context_length: int
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]


def made_of(model: Any) -> Made:
    """model: Olive's ModelOutput."""
    config = model.model_config
    adapter = config.get("adapter_path")
    found = {name: each.get("value") for name, each in (model.metrics_value or {}).items()}
    metrics = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    return Made(Path(model.model_path), Path(adapter) if adapter else None, metrics)


def servable(made: Made, source: Path | None, staging: Path, context: TaskContext) -> Servable:
    """Written into `staging`. source: the checkpoint that the workflow began from, if it is here.

    Raises UnsupportedModel with the reason why it is none, CorruptModel, Stopped.
    """
    if made.adapter is not None:
        return _with_adapter(made, made.adapter, staging, context)
    if (made.folder / GENAI_CONFIG).is_file():
        return _onnx(made, source, staging, context)
    if is_checkpoint(made.folder):
        weights = staging / "checkpoint"
        _copy(made.folder, weights)
        return _built(made, weights, staging, context)
    raise UnsupportedModel(f"{made.path.name} has no {GENAI_CONFIG} beside it, which serving needs (ModelBuilder writes one).")


def _onnx(made: Made, source: Path | None, staging: Path, context: TaskContext) -> Servable:
    folder = staging / "served"
    folder.mkdir()
    progress = StagedProgress(context)
    _mend_logits(made.folder)
    imported = OnnxFolderImporter().run(made.folder, folder, ImportOptions(), progress)
    metrics: dict[str, float] = {}
    if source is not None and imported.provider_family == "cpu" and imported.parameters.get("graph") == GraphKind.GQA:
        metrics = quality(source, folder, imported.context_length, context.threads, progress)
    variants = (StagedVariant(imported.precision, imported.provider_family, folder),)
    return Servable(variants, imported.architecture, imported.context_length, imported.parameters, {**metrics, **made.metrics})


def _mend_logits(folder: Path) -> None:
    """Olive's rounding passes rename the output of the product that they round (`logits_Q4`), but not in genai_config.json."""
    import onnx

    decoder = json.loads((folder / GENAI_CONFIG).read_text(encoding="utf-8")).get("model", {}).get("decoder", {})
    path, wanted = folder / str(decoder.get("filename", "")), decoder.get("outputs", {}).get("logits", "logits")
    if not path.is_file():
        return  # the import tells what is wrong
    graph = onnx.load_model(path, load_external_data=False)
    outputs = {value.name: value for value in graph.graph.output}
    renamed = [name for name in outputs if re.fullmatch(re.escape(wanted) + r"_Q\d+", name)]
    if wanted in outputs or len(renamed) != 1:
        return
    outputs[renamed[0]].name = wanted
    for node in graph.graph.node:
        node.output[:] = [wanted if name == renamed[0] else name for name in node.output]
    onnx.save_model(graph, path)


def _with_adapter(made: Made, adapter: Path, staging: Path, context: TaskContext) -> Servable:
    """Merged, as a tuning's is, with the adapter beside it."""
    if not is_adapter(adapter):
        raise UnsupportedModel(f"{adapter.name} is no adapter in PEFT's layout with safetensors.")
    context.stage("merging the adapter")
    weights, own = staging / "checkpoint", staging / "adapter"
    _copy(adapter, own)
    save_weights(merged(made.folder, adapter), made.folder, weights)
    return _built(made, weights, staging, context, StagedVariant(Precision.FP32, ADAPTER, own))


def _copy(source: Path, folder: Path) -> None:
    """Weights, configuration and tokenizer; never code."""
    folder.mkdir()
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in _KEPT:
            shutil.copyfile(file, folder / file.name)


def _built(made: Made, weights: Path, staging: Path, context: TaskContext, *others: StagedVariant) -> Servable:
    found = build(context, weights, staging, Precision.AUTO)
    variants = (*found.variants, *others)
    return Servable(variants, found.architecture, found.context_length, found.parameters, {**found.metrics, **made.metrics})
