"""From foreign formats to folders that engines load: files and weights, no database and no network.

Used from outside are the importers and what is in `__all__`; `source` and the formats' `open_*`; `quantizers.recipe` and `.mixing`;
`measure`; and what reads or writes one file: `formats.checkpoint.safetensors_file` and `.writer`, `formats.onnx.genai_config`. This
file owns the ordered choice among importers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from model_registry.conversion.formats.model_texts import can_chat, check_texts, panics_are_damage
from model_registry.conversion.importer import Imported, Importer, ImportOptions
from model_registry.disk import remove_tree
from model_registry.errors import UnsupportedModel
from model_registry.progress import Progress
from model_registry.records import Capability

__all__ = ["ImportOptions", "Imported", "Importer", "all_importers", "choose", "run_first"]


def all_importers() -> tuple[Importer, ...]:
    """The importers in the order they are tried. Their heavy libraries load when they run."""
    from model_registry.conversion.formats.checkpoint.importer import CheckpointImporter
    from model_registry.conversion.formats.gguf.importer import GgufImporter
    from model_registry.conversion.formats.onnx.importer import OnnxFolderImporter

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


def run_first(
    path: Path, destination: Path, options: ImportOptions, progress: Progress, importers: tuple[Importer, ...] | None = None
) -> tuple[str, Imported]:
    """(the importer's name, what it wrote), by the first that takes `path` and can import it. importers: None for all.

    Raises UnsupportedModel with the reason of each that could not, and what importers raise.
    """
    candidates = all_importers() if importers is None else importers
    takers = [importer for importer in candidates if importer.can_import(path)] or [choose(path, candidates)]
    refusals: list[UnsupportedModel] = []
    for importer in takers:
        if refusals:
            progress.stage(f"importing with {importer.name} instead")
            for left in destination.iterdir():
                remove_tree(left)
        try:
            with panics_are_damage("The model's tokenizer"):
                imported = importer.run(path, destination, options, progress)
            warnings = dict.fromkeys((*imported.warnings, *check_texts(destination)))
            lacking = frozenset() if can_chat(destination) else frozenset({Capability.CHAT})
            capabilities = imported.capabilities - lacking
            return importer.name, replace(imported, warnings=tuple(warnings), capabilities=capabilities)
        except UnsupportedModel as refusal:
            refusals.append(refusal)
    raise UnsupportedModel(" ".join(refusal.message for refusal in refusals)) from refusals[-1]
