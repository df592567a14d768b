"""GGUF files of any architecture that transformers reads, as checkpoints: dequantized, with the tokenizer that the file holds."""

from __future__ import annotations

from pathlib import Path

from jobs.tasks.conversion.quiet import be_offline
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.progress import Progress


def write_checkpoint(path: Path, folder: Path, progress: Progress) -> None:
    """config.json, safetensors in float32 and the tokenizer into `folder`, which exists. Raises UnsupportedModel, CorruptModel."""
    be_offline()
    progress.stage("reading the GGUF file with transformers")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except (ValueError, NotImplementedError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()
        raise UnsupportedModel(
            f"transformers cannot read {path.name}: {reason[0] if reason else type(error).__name__}. "
            "Convert the model's Hugging Face checkpoint instead."
        ) from error
    except (RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptModel(f"{path.name} cannot be read ({str(error).strip().splitlines()[0]}). Fetch it again.") from error
    progress.stage("writing the checkpoint")
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
