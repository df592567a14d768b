"""What a source is worth, and what was lost on the way: on which tokens a model can be measured in time, and both perplexities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model_registry.conversion.measure import perplexity as measure
from model_registry.conversion.measure.reference import reference_logits
from model_registry.conversion.source import TensorSource, num_parameters, vocab_size
from model_registry.progress import Progress


def measurable_tokens(source: TensorSource, most: int) -> int:
    """How many tokens the source can be measured on in time and memory; 0 when it is too large."""
    import psutil

    counts = {name: info.num_values for name, info in source.tensors.items()}
    first_layer = sum(count for name, count in counts.items() if name.startswith("blk.0."))
    largest_bytes = 4 * max(first_layer, max(counts.values()))
    return measure.plan_num_tokens(num_parameters(source), largest_bytes, psutil.virtual_memory().available, most)


def measurable_windows(source: TensorSource, folder: Path) -> tuple[measure.Ids, ...]:
    """Windows of the shipped text, in the tokens of the folder's tokenizer; none when the model is too large or the tokenizer does
    not fit it.
    """
    num_tokens = measurable_tokens(source, measure.MAX_TOKENS)
    if num_tokens == 0:
        return ()
    windows = measure.text_windows(folder, measure.TEXT, num_tokens, source.architecture.context_length)
    if any(int(window.max()) >= vocab_size(source) for window in windows):
        return ()
    return windows if measure.num_predicted(windows) else ()


def source_perplexity(source: TensorSource, windows: Sequence[measure.Ids], counts: measure.Counts = None) -> float:
    """Of the source's own logits, computed in float32. Raises CorruptModel for tensors that are not finite."""
    return measure.perplexity(reference_logits(source, windows), windows, counts)


def measure_import(source: TensorSource, folder: Path, progress: Progress) -> dict[str, float]:
    """Perplexity of source and import on the same tokens; empty when the model is too large to measure in time.

    folder: the import, with its tokenizer.
    """
    windows = measurable_windows(source, folder)
    if not windows:
        return {}
    progress.stage("measuring the import")
    imported = measure.folder_perplexity(folder, windows)
    progress.stage("measuring the source")
    own = source_perplexity(source, windows)
    metrics = {"perplexity": imported, "perplexity_source": own, "perplexity_tokens": float(measure.num_predicted(windows))}
    return metrics if np.isfinite([imported, own]).all() else {}
