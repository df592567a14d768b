"""ONNX folders: onnxruntime-genai's taken as they are, browser exports with the missing configuration written.

Checks that everything a worker will open is there and whole; converts nothing.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_registry.conversion.formats.model_texts import GenaiConfig, Generation, load_tokenizer
from model_registry.conversion.formats.onnx.genai_config import (
    check_batching,
    check_decoder,
    check_options,
    graph_kind,
    read_config,
    write_config,
)
from model_registry.conversion.formats.onnx.graph import GraphFacts, read_graph
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.disk import link_or_copy
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.paths import check_file, safe_name
from model_registry.progress import Progress
from model_registry.records import GraphKind, Precision
from model_registry.text_files import checked, read_object

GENAI_CONFIG = "genai_config.json"
_KEPT_SUFFIXES = frozenset({".json", ".jinja", ".model", ".txt", ".md"})
_MAX_KEPT_BYTES = 256 << 20
_COPYING = {
    GraphKind.GQA: "copying the model",
    GraphKind.PAGED: "copying the model (its KV cache is paged: onnxruntime-genai will serve it, on a GPU)",
    GraphKind.OTHER: "copying the model (its graph cannot batch: onnxruntime-genai will serve it)",
}
_BROWSER_MODELS = ("model.onnx", "model_q4.onnx")


@dataclass(frozen=True, slots=True)
class _Layout:
    """The files of a model's folder. graph: the .onnx file. folders: those with configuration, the nearest to the graph first."""

    graph: Path
    folders: tuple[Path, ...]

    def find(self, name: str) -> Path | None:
        """Raises CorruptModel for a link that leads away."""
        for folder in self.folders:
            if (folder / name).is_file():
                check_file(folder / name, folder)
                return folder / name
        return None


class OnnxFolderImporter:
    """A folder with `genai_config.json`, or a graph (there or in `onnx/`), `config.json` and `tokenizer.json`."""

    name = "onnx_folder"

    def can_import(self, path: Path) -> bool:
        if path.is_file():
            return path.suffix == ".onnx"
        return (path / GENAI_CONFIG).is_file() or any(path.glob("*.onnx")) or any(path.glob("onnx/*.onnx"))

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        progress.stage("checking the model")
        layout = _layout(path)
        graph = read_graph(layout.graph)
        config = self._config(layout, graph)
        decoder = read_config(config)
        check_decoder(graph, decoder)
        kind = graph_kind(graph, decoder)
        has_own_config = layout.find(GENAI_CONFIG) is not None
        if not has_own_config:
            check_batching(kind, decoder.architecture)
        _check_precision(graph.precision, options.precision)
        _check_tokenizer(layout)
        progress.stage(_COPYING[kind])
        _copy_graph(layout.graph, graph, destination, may_link=options.may_link)
        _copy_configuration(layout, destination)
        config["model"]["decoder"]["filename"] = layout.graph.name
        (destination / GENAI_CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        return Imported(
            architecture=decoder.architecture,
            context_length=decoder.context_length,
            precision=graph.precision,
            provider_family=decoder.provider_family,
            parameters={
                "precision": graph.precision.value,
                "wrote_genai_config": not has_own_config,
                "graph": kind.value,
            },
            graph=kind,
        )

    @staticmethod
    def _config(layout: _Layout, graph: GraphFacts) -> dict[str, Any]:
        own = layout.find(GENAI_CONFIG)
        if own is not None:
            return _genai_config(own)
        config = layout.find("config.json")
        if config is None:
            raise CorruptModel("The folder has neither genai_config.json nor config.json. Fetch the whole model.")
        model, generation = read_object(config), layout.find("generation_config.json")
        generation_config = read_object(generation) if generation else {}
        checked(generation_config, Generation, "generation_config.json")
        written = write_config(model, generation_config, graph, layout.graph.name)
        checked(written, GenaiConfig, "config.json")
        return written


def _layout(path: Path) -> _Layout:
    if path.is_file():
        return _Layout(path, (path.parent, path.parent.parent) if path.parent.name == "onnx" else (path.parent,))
    config = path / GENAI_CONFIG
    if config.is_file():
        check_file(config, path)
        return _Layout(_inside(path, read_config(_genai_config(config)).filename), (path,))
    for folder in (path, path / "onnx"):
        found = sorted(folder.glob("*.onnx"))
        preferred = [file for name in _BROWSER_MODELS for file in found if file.name == name]
        if len(found) == 1 or preferred:
            return _Layout((preferred or found)[0], (folder, path) if folder != path else (path,))
        if found:
            raise UnsupportedModel(f"{path} holds several graphs; name one: {', '.join(file.name for file in found)}.")
    raise CorruptModel(f"{path} holds no .onnx file. Fetch the whole model.")


def _inside(folder: Path, name: str) -> Path:
    try:
        graph = folder / safe_name(name, GENAI_CONFIG)
    except CorruptModel as error:
        raise CorruptModel(
            f"genai_config.json names the graph {name[:200]!r}, which cannot be or is outside the model's folder. "
            "Do not trust this model."
        ) from error
    if not graph.is_file():
        raise CorruptModel(f"genai_config.json names the graph {name!r}, which is missing. Fetch the whole model.")
    return graph


def _genai_config(path: Path) -> dict[str, Any]:
    """Reads the file and checks the types of the fields that are used. Raises CorruptModel, UnsupportedModel."""
    config = read_object(path)
    checked(config, GenaiConfig, GENAI_CONFIG)
    check_options(config)
    return config


def _check_precision(found: Precision, wanted: Precision) -> None:
    if wanted not in (Precision.AUTO, found):
        raise UnsupportedModel(
            f"This ONNX model is {found} and is taken as it is, so --precision {wanted} cannot be had. "
            "Leave the option out, or pull another build."
        )


def _check_tokenizer(layout: _Layout) -> None:
    path = layout.find("tokenizer.json")
    if path is None:
        raise CorruptModel("The folder has no tokenizer.json, without which no text becomes tokens. Fetch the whole model.")
    load_tokenizer(path)


def _copy_graph(graph: Path, facts: GraphFacts, destination: Path, *, may_link: bool) -> None:
    for name in (graph.name, *facts.data_files):
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if may_link:
            link_or_copy(graph.parent / name, target)
        else:
            shutil.copyfile(graph.parent / name, target)


def _copy_configuration(layout: _Layout, destination: Path) -> None:
    """Plain files of known kinds, the ones nearest to the graph winning; code stays behind. Raises CorruptModel."""
    for folder in layout.folders:
        for file in sorted(folder.iterdir()):
            target = destination / file.name
            if file.is_file() and _is_kept(file) and not target.exists():
                check_file(file, folder)
                shutil.copyfile(file, target)


def _is_kept(file: Path) -> bool:
    is_kind = file.suffix in _KEPT_SUFFIXES and not file.name.startswith(".") and file.name != GENAI_CONFIG
    return is_kind and file.stat().st_size <= _MAX_KEPT_BYTES
