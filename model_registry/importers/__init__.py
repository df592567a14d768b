"""The ordered choice among importers. Knows their names, not their formats; each is one file or folder here."""

from __future__ import annotations

from pathlib import Path

from model_registry.errors import UnsupportedModel
from model_registry.importers.protocol import Imported, Importer, ImportOptions

__all__ = ["ImportOptions", "Imported", "Importer", "all_importers", "choose"]


def all_importers() -> tuple[Importer, ...]:
    """In the order they are asked. Their heavy libraries load when they run."""
    from model_registry.importers.checkpoint import CheckpointImporter
    from model_registry.importers.gguf import GgufImporter
    from model_registry.importers.onnx_folder import OnnxFolderImporter

    return (GgufImporter(), CheckpointImporter(), OnnxFolderImporter())


def choose(path: Path, importers: tuple[Importer, ...] | None = None) -> Importer:
    """The first importer that takes `path`. Raises UnsupportedModel."""
    candidates = all_importers() if importers is None else importers
    for importer in candidates:
        if importer.can_import(path):
            return importer
    known = ", ".join(importer.name for importer in candidates)
    raise UnsupportedModel(
        f"Nothing here imports {path.name!r} (known formats: {known}). Give a .gguf file, or a folder with model.onnx, "
        "genai_config.json (or config.json) and tokenizer.json."
    )
