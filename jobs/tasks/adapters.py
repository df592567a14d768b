"""LoRA adapters in PEFT's layout: written, found, and merged into their base. Imports PyTorch inside functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model_registry.errors import UnsupportedModel
from model_registry.lora import CONFIG, WEIGHTS

_NAMING_MODULES = "megatron_config"  # with it, PEFT imports the module that `megatron_core` names


def merged(checkpoint: Path, adapter: Path) -> Any:
    """The base in float32 with the adapter's changes in its weights: W + B A alpha / r, and DoRA's magnitudes."""
    _check_plain(adapter)
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, trust_remote_code=False)
    return PeftModel.from_pretrained(base, adapter).merge_and_unload()


def _check_plain(adapter: Path) -> None:
    """Raises UnsupportedModel for a configuration that names modules to be imported."""
    config = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(config, dict) or config.get(_NAMING_MODULES):
        raise UnsupportedModel(f"{adapter.name}'s {CONFIG} names modules to import; merge an adapter without {_NAMING_MODULES}.")


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()
