"""GGUF files of any architecture that transformers reads, as checkpoints: dequantized, with the tokenizer that the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.tasks.vendors.hugging_face import be_offline
from model_registry.errors import UnsupportedModel
from model_registry.progress import Progress


def write_checkpoint(path: Path, folder: Path, progress: Progress) -> None:
    """config.json, safetensors in float32 and the tokenizer into `folder`, which exists. Raises UnsupportedModel."""
    be_offline()
    progress.stage("reading the GGUF file with transformers")
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked: dict[str, Any] = {"gguf_file": path.name, "dtype": torch.float32, "trust_remote_code": False}
    if hasattr(transformers, "GgufConfig"):  # later releases keep the blocks unless they are told not to
        asked["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        model = AutoModelForCausalLM.from_pretrained(path.parent, **asked)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    except Exception as error:  # whatever its many converters stumble over
        if isinstance(error, MemoryError | ImportError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UnsupportedModel(
            f"transformers cannot read {path.name}: {reason}. Convert the model's Hugging Face checkpoint instead."
        ) from error
    progress.stage("writing the checkpoint")
    quantizer: Any = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)  # it is quantized no more, and would not be saved
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
