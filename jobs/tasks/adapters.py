"""LoRA adapters in PEFT's layout: written, found, and merged into their base. Imports PyTorch inside functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_registry.errors import UnsupportedModel
from model_registry.records import ADAPTER, ModelVersion

_WEIGHTS = "adapter_model.safetensors"


def adapter_folder(version: ModelVersion) -> Path:
    """Raises UnsupportedModel when the version has no adapter."""
    for variant in version.variants:
        if variant.provider_family == ADAPTER:
            return variant.folder
    raise UnsupportedModel(f"{version.label} has no adapter. Name a version that a LoRA or DoRA tuning made, or a PEFT folder.")


def merged(checkpoint: Path, adapter: Path) -> Any:
    """The base in float32 with the adapter's changes in its weights: W + B A alpha / r, and DoRA's magnitudes."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    return PeftModel.from_pretrained(base, adapter).merge_and_unload()


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file() and (folder / _WEIGHTS).is_file()
