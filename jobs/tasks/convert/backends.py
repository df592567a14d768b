"""Who converts: slmops' own importers, onnxruntime-genai's model builder, or Olive around it. Owns the choice."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from jobs.task import TaskContext
from jobs.tasks.convert.builder_options import BuildOrder
from jobs.tasks.convert.built import Builder, BuiltImporter
from model_registry.conversion import all_importers
from model_registry.conversion.importer import Importer
from model_registry.progress import Progress

LIBRARIES = ("torch", "transformers", "onnxruntime-genai", "onnx-ir", "olive-ai")


class Backend(StrEnum):
    AUTO = "auto"  # slmops where it can, else genai-builder
    SLMOPS = "slmops"  # fast, smoothed, measured, without PyTorch; of a few families, for the CPU
    GENAI_BUILDER = "genai-builder"
    OLIVE = "olive"  # Olive's ModelBuilder pass


def missing_for(backend: Backend) -> str | None:
    """The command that installs what the backend needs and this environment lacks; None when all is here, or none is needed."""
    needs = {
        Backend.GENAI_BUILDER: ("tune", ("torch", "transformers", "onnx_ir")),
        Backend.OLIVE: ("olive", ("torch", "transformers", "onnx_ir", "olive")),
    }
    extra, modules = needs.get(backend, ("", ()))
    return f"pip install 'slmops[{extra}]'" if any(find_spec(module) is None for module in modules) else None


def importers_of(
    backend: Backend, order: BuildOrder | None, options: dict[str, object], context: TaskContext
) -> tuple[Importer, ...]:
    """The backends in the order they are tried. order: None when only the importers of slmops may be used."""
    own = all_importers() if backend in (Backend.AUTO, Backend.SLMOPS) else ()
    if order is None:
        return own
    name = Backend.OLIVE if backend is Backend.OLIVE else Backend.GENAI_BUILDER
    return (*own, BuiltImporter(str(name), _builder(name), order, options, context))


def _builder(backend: Backend) -> Builder:
    """The backend's builder, whose module is imported when it builds."""

    def by_genai(checkpoint: Path, folder: Path, scratch: Path, order: BuildOrder, progress: Progress) -> None:
        from jobs.tasks.convert.model_builder import build

        build(checkpoint, folder, scratch, order, progress)

    def by_olive(checkpoint: Path, folder: Path, scratch: Path, order: BuildOrder, progress: Progress) -> None:
        from jobs.tasks.convert.olive_builder import build

        build(checkpoint, folder, scratch, order, progress)

    return by_olive if backend is Backend.OLIVE else by_genai
