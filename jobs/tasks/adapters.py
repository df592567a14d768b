"""LoRA adapters in PEFT's layout: written, found, and merged into their base. Imports PyTorch inside functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_registry.lora import CONFIG, WEIGHTS


def merged(checkpoint: Path, adapter: Path) -> Any:
    """The base in float32 with the adapter's changes in its weights: W + B A alpha / r, and DoRA's magnitudes."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, trust_remote_code=False)
    return PeftModel.from_pretrained(base, adapter).merge_and_unload()


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()
