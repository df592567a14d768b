"""LoRA adapters in PEFT's layout, read without PyTorch: what each adds to which matrix. Knows no graph and no registry.

An adapter is `adapter_config.json` with `adapter_model.safetensors`; a matrix W becomes W + up @ down (LoRA, Hu et al. 2021).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.formats.checkpoint.safetensors_file import READABLE, open_safetensors
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.text_files import read_object

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Floats = NDArray[np.float32]
_NAME = re.compile(r".*\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_(A|B)(?:\.default)?\.weight")


@dataclass(frozen=True, slots=True)
class LowRank:
    """down: [rank, columns]; up: [rows, rank], with the adapter's scale in it."""

    down: Floats
    up: Floats


@dataclass(frozen=True, slots=True)
class Lora:
    """changes: by layer and module (one of MODULES). rank: the largest of all."""

    rank: int
    changes: Mapping[tuple[int, str], LowRank]


def read_lora(folder: Path) -> Lora:
    """Raises UnsupportedModel for what is no such adapter, is damaged, or changes more than sums of low rank can."""
    config = _config(folder)
    halves: dict[tuple[int, str], dict[str, Floats]] = {}
    for name, values in _tensors(folder / WEIGHTS):
        match = _NAME.fullmatch(name)
        if match is None or match[2] not in MODULES:
            raise UnsupportedModel(f"The adapter changes {name}; served are changes of {', '.join(MODULES)}. Merge it instead.")
        halves.setdefault((int(match[1]), match[2]), {})[match[3]] = values
    changes = {}
    for (layer, module), pair in halves.items():
        if pair.keys() != {"A", "B"} or pair["A"].ndim != 2 or pair["B"].ndim != 2 or len(pair["A"]) != pair["B"].shape[1]:
            raise UnsupportedModel(f"The adapter's matrices for {module} of layer {layer} do not fit each other.")
        changes[layer, module] = LowRank(pair["A"], pair["B"] * _scale(config, len(pair["A"])))
    if not changes:
        raise UnsupportedModel("The adapter changes nothing.")
    return Lora(max(len(change.down) for change in changes.values()), changes)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = read_object(folder / CONFIG)
    except (OSError, CorruptModel) as error:
        raise UnsupportedModel(f"{folder.name} is no adapter: {CONFIG} cannot be read ({error}).") from None
    if config.get("peft_type") != "LORA":
        raise UnsupportedModel("Only LoRA adapters are served beside others. Merge this one instead.")
    refused = {
        "use_dora": "DoRA's magnitudes",
        "modules_to_save": "whole modules",
        "alpha_pattern": "scales of single modules (alpha_pattern)",
        "lora_bias": "biases",
    }
    for field, what in refused.items():
        if config.get(field):
            raise UnsupportedModel(f"The adapter has {what}, which cannot be served beside others. Run a merge job instead.")
    if config.get("bias", "none") != "none":
        raise UnsupportedModel("The adapter changes biases, which cannot be served beside others. Run a merge job instead.")
    return config


def _scale(config: Mapping[str, Any], rank: int) -> float:
    alpha = config.get("lora_alpha", rank)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or rank == 0:
        raise UnsupportedModel(f"The adapter's lora_alpha is {alpha!r}, and its rank {rank}; both must be numbers above 0.")
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _tensors(path: Path) -> Iterator[tuple[str, Floats]]:
    """The tensors of a safetensors file, as float32."""
    try:
        stored = open_safetensors(path)
    except (OSError, CorruptModel) as error:
        raise UnsupportedModel(f"{WEIGHTS} cannot be read ({error}).") from None
    for name, tensor in stored.items():
        if tensor.dtype not in READABLE:
            raise UnsupportedModel(f"{WEIGHTS} cannot be read ({name} is stored as {tensor.dtype}).")
        yield name, tensor.read()
