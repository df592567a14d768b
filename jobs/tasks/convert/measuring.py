"""Perplexity of a build and of the checkpoint that it was made from, on the same tokens; where the CPU can compute both in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.formats.checkpoint.safetensors_file import count_parameters
from model_registry.conversion.measure import perplexity as measure
from model_registry.progress import Progress


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
