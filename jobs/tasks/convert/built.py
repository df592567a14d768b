"""An importer that builds: a checkpoint or GGUF file of any architecture, by a builder, as a folder that is served.

Owns the order: a readable checkpoint, the build, the check that any ONNX folder gets, the measurement.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.task import TaskContext
from jobs.tasks.convert.builder_options import BuildOrder
from jobs.tasks.convert.gguf_models import write_checkpoint
from jobs.tasks.convert.measuring import quality
from jobs.tasks.convert.pickles import is_checkpoint, linked_texts
from model_registry.conversion.formats.gguf.importer import GgufImporter
from model_registry.conversion.formats.onnx.importer import OnnxFolderImporter
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.progress import Progress
from model_registry.records import GraphKind

Builder = Callable[[Path, Path, Path, BuildOrder, Progress], None]


@dataclass(frozen=True, slots=True)
class BuiltImporter:
    """name: the backend's. builder: (checkpoint, empty folder, scratch folder, order, progress). options: as they were asked."""

    name: str
    builder: Builder
    order: BuildOrder
    options: Mapping[str, Any]
    context: TaskContext

    def can_import(self, path: Path) -> bool:
        return GgufImporter().can_import(path) or is_checkpoint(path)

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        """Also raises JobFailure, and Stopped."""
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
