"""Writes LoRA adapters as PEFT does, with random matrices or given ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_registry.lora import CONFIG, WEIGHTS

Matrices = dict[tuple[int, str], tuple[NDArray[np.float32], NDArray[np.float32]]]  # (A [rank, columns], B [rows, rank])


def random_matrices(sizes: Mapping[str, tuple[int, int]], *, layers: int, rank: int, seed: int, size: float = 0.3) -> Matrices:
    """sizes: (rows, columns) of each module."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, size, shape).astype(np.float32)

    return {
        (layer, name): (normal(rank, columns), normal(rows, rank))
        for layer in range(layers)
        for name, (rows, columns) in sizes.items()
    }


def write_peft(folder: Path, matrices: Matrices, *, alpha: float, **config: Any) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    rank = max((len(a) for a, _ in matrices.values()), default=1)
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": alpha, **config}))
    tensors = {}
    for (layer, name), (a, b) in matrices.items():
        place = "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
        path = f"base_model.model.model.layers.{layer}.{place}.{name}"
        tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"] = a, b
    save_file(tensors, folder / WEIGHTS)
    return folder
