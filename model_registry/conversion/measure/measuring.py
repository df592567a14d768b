"""What the source itself is worth: on which tokens it can be measured in time, and its perplexity there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.formats.gguf.reader import GgufFile
from model_registry.conversion.measure import perplexity as measure
from model_registry.conversion.measure.reference import reference_logits
from model_registry.conversion.source import EMBEDDING


def measurable_tokens(source: GgufFile, most: int) -> int:
    """How many tokens the source can be measured on in time and memory; 0 when it is too large."""
    import psutil

    counts = {name: info.num_rows * info.columns for name, info in source.tensors.items()}
    first_layer = sum(count for name, count in counts.items() if name.startswith("blk.0."))
    largest_bytes = 4 * max(first_layer, max(counts.values()))
    return measure.plan_num_tokens(sum(counts.values()), largest_bytes, psutil.virtual_memory().available, most)


def measurable_windows(source: GgufFile, architecture: Architecture, folder: Path) -> tuple[measure.Ids, ...]:
    """Of the shipped text, in the tokens of the folder's tokenizer; none when the model is too large, or not its tokenizer's."""
    num_tokens = measurable_tokens(source, measure.MAX_TOKENS)
    if num_tokens == 0:
        return ()
    windows = measure.text_windows(folder, measure.TEXT, num_tokens, architecture.context_length)
    if any(int(window.max()) >= source.tensors[EMBEDDING].shape[0] for window in windows):
        return ()
    return windows if measure.num_predicted(windows) else ()


def source_perplexity(
    source: GgufFile, architecture: Architecture, windows: Sequence[measure.Ids], counts: measure.Counts = None
) -> float:
    return measure.perplexity(reference_logits(source, architecture, windows), windows, counts)
