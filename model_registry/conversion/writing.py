"""From an open source to a folder that is served: texts, smoothing, the decoder, and what was lost, whatever the format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model_registry.conversion.decoder.genai_config import NO_END, genai_config
from model_registry.conversion.decoder.writer import WrittenBits, write_decoder
from model_registry.conversion.formats.model_texts import check_texts
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.conversion.measure.calibration import TEXT, calibrate, plan_num_tokens
from model_registry.conversion.measure.perplexity import text_windows
from model_registry.conversion.measure.quality import measure_import
from model_registry.conversion.quantizers.recipe import FLOAT_BITS, HALF_BITS
from model_registry.conversion.quantizers.smoothing import Smoothing
from model_registry.conversion.source import TensorSource, TextFacts, num_parameters, vocab_size
from model_registry.progress import Progress
from model_registry.records import Precision


def write_model(source: TensorSource, folder: Path, options: ImportOptions, progress: Progress) -> Imported:
    """Write everything into the empty `folder`; what can be refused is refused before the first weight.

    The decoder is smoothed, rounded, and measured if `options` say so. Raises CorruptModel, UnsupportedModel.
    """
    facts = source.write_texts(folder)
    _write_config(source, facts, folder)
    check_texts(folder)
    smoothing = _smoothing(source, folder, options, progress)
    written = write_decoder(source, folder, options.precision, smoothing, progress, options.recipe)
    np.savez(folder / "smoothing.npz", allow_pickle=False, **smoothing.factors())  # adapters must be smoothed alike
    imported = Imported(
        architecture=source.architecture.name,
        context_length=source.architecture.context_length,
        precision=_precision(written),
        parameters=_parameters(source, written, smoothing),
        metrics=measure_import(source, folder, progress) if options.measure else {},
        licence=facts.licence,
        warnings=facts.warnings,
    )
    return imported if facts.ends else replace(imported, warnings=(*imported.warnings, NO_END))


def _write_config(source: TensorSource, facts: TextFacts, folder: Path) -> None:
    config = genai_config(source.architecture, facts, vocab_size(source))
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "genai_config.json").write_text(text, encoding="utf-8")


def _smoothing(source: TensorSource, folder: Path, options: ImportOptions, progress: Progress) -> Smoothing:
    """Smooths by the given texts, or by the shipped one in the model's own tokens."""
    num_tokens = plan_num_tokens(num_parameters(source))
    windows = options.calibration or text_windows(folder, TEXT, num_tokens, source.architecture.context_length)
    return calibrate(source, options.precision, windows, progress, options.recipe)


def _precision(written: WrittenBits) -> Precision:
    """By the layers' matrices: the head's may be finer, and stands in the parameters."""
    names = {4: Precision.INT4, 8: Precision.INT8, HALF_BITS: Precision.FP16, FLOAT_BITS: Precision.FP32}
    return names[min(written.layers)] if len(written.layers) == 1 else Precision.MIXED


def _parameters(source: TensorSource, written: WrittenBits, smoothing: Smoothing) -> dict[str, Any]:
    kinds = [info.dtype for info in source.tensors.values() if len(info.shape) > 1]
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
