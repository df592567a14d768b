"""An importer that builds: a checkpoint or GGUF file of any architecture, by a builder, as a folder that is served.

Owns the order: a readable checkpoint, the build, the check that any ONNX folder gets, and the measurement: the perplexity of the
build and of its checkpoint on the same tokens, where the CPU can compute both in time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.task import TaskContext
from jobs.tasks.convert.builder_options import BuildOrder
from jobs.tasks.convert.pickles import is_checkpoint, linked_texts, write_checkpoint
from model_registry.conversion.formats.checkpoint.safetensors_file import count_parameters
from model_registry.conversion.formats.gguf.importer import GgufImporter
from model_registry.conversion.formats.onnx.importer import OnnxFolderImporter
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.conversion.measure import perplexity as measure
from model_registry.progress import Progress
from model_registry.records import GraphKind


def quality(checkpoint: Path, built: Path, context_length: int, threads: int, progress: Progress) -> dict[str, float]:
    """Empty when the model is too large, or the text has tokens that it does not. Raises CorruptModel for a build that fails."""
    import psutil

    num_parameters = count_parameters(checkpoint)
    num_tokens = measure.plan_num_tokens(num_parameters, 4 * num_parameters, psutil.virtual_memory().available)
    if num_tokens == 0:
        return {}
    windows = measure.text_windows(built, measure.TEXT, num_tokens, context_length)
    if measure.num_predicted(windows) == 0:
        return {}
    progress.stage("measuring the source")
    model = _loaded(checkpoint, threads)
    if any(int(window.max()) >= model.config.vocab_size for window in windows):
        return {}
    source = measure.perplexity(_logits(model, windows), windows)
    del model
    progress.stage("measuring the build")
    imported = measure.folder_perplexity(built, windows, threads)
    metrics = {"perplexity": imported, "perplexity_source": source, "perplexity_tokens": float(measure.num_predicted(windows))}
    return metrics if isfinite(imported) and isfinite(source) else {}


def _loaded(checkpoint: Path, threads: int) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    # in evaluation mode, as that leaves it
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, trust_remote_code=False)


def _logits(model: Any, windows: Sequence[measure.Ids]) -> Iterator[NDArray[np.float32]]:
    import torch

    with torch.inference_mode():
        for window in windows:
            yield model(input_ids=torch.from_numpy(window)[None]).logits[0].float().numpy()


Builder = Callable[[Path, Path, Path, BuildOrder, Progress], None]


@dataclass(frozen=True, slots=True)
class BuiltImporter:
    """name: the backend's. builder: (checkpoint, empty folder, scratch folder, order, progress). options: as requested."""

    name: str
    builder: Builder
    order: BuildOrder
    options: Mapping[str, Any]
    context: TaskContext

    def can_import(self, path: Path) -> bool:
        return GgufImporter().can_import(path) or is_checkpoint(path)

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        """Builds and imports the model. Also raises JobFailure, and Stopped."""
        with self.context.registry.staging() as staging:
            checkpoint, built, scratch = (staging / name for name in ("checkpoint", "built", "scratch"))
            for folder in (checkpoint, built, scratch):
                folder.mkdir()
            if path.is_file():
                write_checkpoint(path, checkpoint, progress)
            else:
                linked_texts(path, checkpoint)
                for file in path.glob("*.safetensors"):
                    (checkpoint / file.name).symlink_to(file.resolve())
            self.builder(checkpoint, built, scratch, self.order, progress)
            if (checkpoint / "generation_config.json").is_file():
                shutil.copyfile(checkpoint / "generation_config.json", built / "generation_config.json")
            imported = OnnxFolderImporter().run(built, destination, ImportOptions(may_link=True), progress)
            metrics = self._quality(checkpoint, destination, imported, progress) if options.measure else {}
        parameters = {**self.options, **imported.parameters, "built_as": str(self.order.precision)}
        return replace(imported, parameters=parameters, metrics=metrics)

    def _quality(self, checkpoint: Path, built: Path, imported: Imported, progress: Progress) -> dict[str, float]:
        """Graphs for other providers, and those with other states than a KV cache, are not run here."""
        if imported.provider_family != "cpu" or imported.graph is not GraphKind.GQA:
            return {}
        return quality(checkpoint, built, imported.context_length, self.context.threads, progress)
