"""GGUF files of the llama family and gemma3, imported without PyTorch: owns the order of the steps and what the manifest is told.

reader and metadata know bytes, architecture, rope and tensors know the network, quantize and matrix its weights,
smoothing and calibration how to round it at little cost, graph, external_data and decoder the ONNX form, tokenizer,
pretokenizers and genai_config the files beside it, reference the truth, measuring what is compared with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from model_registry.conversion.decoder.architecture import Architecture, read_architecture
from model_registry.conversion.decoder.genai_config import genai_config, metadata_warnings, tokenizer_config
from model_registry.conversion.decoder.writer import WrittenBits, write_decoder
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.reader import MAGIC, GgufFile, open_gguf
from model_registry.conversion.formats.gguf.tokenizer import Vocabulary, build_tokenizer, read_vocabulary
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.conversion.measure.calibration import TEXT, calibrate, plan_num_tokens
from model_registry.conversion.measure.measuring import measurable_windows, source_perplexity
from model_registry.conversion.quantizers.rtn import FLOAT_BITS, HALF_BITS
from model_registry.conversion.quantizers.smoothing import Smoothing
from model_registry.conversion.source import EMBEDDING, check_tensors
from model_registry.disk import storage_errors
from model_registry.errors import UnsupportedModel
from model_registry.progress import Progress
from model_registry.records import Precision

__all__ = ["GgufImporter"]

_LICENCES = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "gemma": "Gemma",
}
_PRECISIONS = (Precision.AUTO, Precision.INT8, Precision.INT4, Precision.FP16, Precision.FP32)


@dataclass(frozen=True, slots=True)
class _Model:
    source: GgufFile
    architecture: Architecture


class GgufImporter:
    """One file in, one folder out. `auto` keeps Q8_0 and Q4_0 exactly and takes int8 for every other type.

    int8 rounds what is not already so: with smoothing, in blocks of 64 where rows divide by it, else of 32.
    """

    name = "gguf"

    def can_import(self, path: Path) -> bool:
        """Any file that begins with GGUF's magic, or is named so (then `run` tells what is wrong with it)."""
        if not path.is_file():
            return False
        if path.suffix.lower() == ".gguf":
            return True
        try:
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except OSError:
            return False

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        """Everything that can be refused is refused before the first weight is written."""
        if options.precision not in _PRECISIONS:
            raise UnsupportedModel(f"A GGUF file cannot be imported as {options.precision}; possible are {', '.join(_PRECISIONS)}.")
        progress.stage("reading the GGUF file")
        source = open_gguf(path)
        architecture = read_architecture(source.metadata)
        check_tensors(source.tensors, architecture)
        num_rows = source.tensors[EMBEDDING].shape[0]
        vocabulary = read_vocabulary(source.metadata, num_rows)
        with storage_errors(destination, 2 * path.stat().st_size, f"importing {path.name}"):
            _write_texts(source, architecture, vocabulary, destination)
            imported = write_model(source, architecture, destination, options, progress, _licence(source.metadata))
            return replace(imported, warnings=metadata_warnings(source.metadata, architecture, vocabulary, num_rows))


def write_model(
    source: GgufFile, architecture: Architecture, folder: Path, options: ImportOptions, progress: Progress, licence: str | None
) -> Imported:
    """Writes the decoder beside the tokenizer that is in `folder` already: smoothed, rounded, and measured if asked for."""
    model = _Model(source, architecture)
    smoothing = _smoothing(model, folder, options, progress)
    written = write_decoder(source, architecture, folder, options.precision, smoothing, progress, options.recipe)
    np.savez(folder / "smoothing.npz", allow_pickle=False, **smoothing.factors())  # adapters must be smoothed alike
    return Imported(
        architecture=architecture.name,
        context_length=architecture.context_length,
        precision=_precision(written),
        parameters=_parameters(model, written, smoothing),
        metrics=_measure(model, folder, progress) if options.measure else {},
        licence=licence,
    )


def _write_texts(source: GgufFile, architecture: Architecture, vocabulary: Vocabulary, folder: Path) -> None:
    metadata, num_rows = source.metadata, source.tensors[EMBEDDING].shape[0]
    # By Python: what `save` raises on a full disk is a bare Exception.
    (folder / "tokenizer.json").write_text(build_tokenizer(metadata, vocabulary).to_str(pretty=True), encoding="utf-8")
    files: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": tokenizer_config(metadata, architecture, vocabulary),
        "genai_config.json": genai_config(metadata, architecture, vocabulary, num_rows),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _smoothing(model: _Model, folder: Path, options: ImportOptions, progress: Progress) -> Smoothing:
    """By the texts that were given, or the shipped one in the model's own tokens."""
    from model_registry.conversion.measure.perplexity import text_windows

    num_parameters = sum(info.num_rows * info.columns for info in model.source.tensors.values())
    num_tokens = plan_num_tokens(num_parameters)
    windows = options.calibration or text_windows(folder, TEXT, num_tokens, model.architecture.context_length)
    return calibrate(model.source, model.architecture, options.precision, windows, progress, options.recipe)


def _precision(written: WrittenBits) -> Precision:
    """By the layers' matrices: the head's may be finer, and is told in the parameters."""
    names = {4: Precision.INT4, 8: Precision.INT8, HALF_BITS: Precision.FP16, FLOAT_BITS: Precision.FP32}
    return names[min(written.layers)] if len(written.layers) == 1 else Precision.MIXED


def _parameters(model: _Model, written: WrittenBits, smoothing: Smoothing) -> dict[str, Any]:
    kinds = [info.type.name for info in model.source.tensors.values() if len(info.shape) > 1]
    parameters: dict[str, Any] = {
        "precision": str(_precision(written)),
        "head_bits": written.head,
        "source_types": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
    }
    if min(written.layers) < HALF_BITS:
        parameters["block_size"] = max(written.blocks)
        parameters["smoothed"] = smoothing.is_smoothed
        parameters["head_outliers"] = len(smoothing.outliers)
    return parameters


def _licence(metadata: Metadata) -> str | None:
    """SPDX or the licence's own name where we know it; a LicenseRef for the hub's other names."""
    name = metadata.text("general.license")
    if not name:
        return None
    return _LICENCES.get(name.lower(), "LicenseRef-" + "".join(c if c.isalnum() or c in ".-" else "-" for c in name[:80]))


def _measure(model: _Model, folder: Path, progress: Progress) -> dict[str, float]:
    """Perplexity of source and import on the same tokens; empty when the model is too large to measure in time."""
    from model_registry.conversion.measure import perplexity as measure

    windows = measurable_windows(model.source, model.architecture, folder)
    if not windows:
        return {}
    progress.stage("measuring the import")
    imported = measure.folder_perplexity(folder, windows)
    progress.stage("measuring the source")
    source = source_perplexity(model.source, model.architecture, windows)
    metrics = {"perplexity": imported, "perplexity_source": source, "perplexity_tokens": float(measure.num_predicted(windows))}
    return metrics if np.isfinite([imported, source]).all() else {}
