"""Checkpoints that a builder can read, made of pickles and of GGUF files. The only place where a pickle is opened, when requested.

`torch.load(weights_only=True)` opens it. Imports PyTorch inside functions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.tasks.vendors.hugging_face import be_offline
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.progress import Progress


def write_checkpoint(path: Path, folder: Path, progress: Progress) -> None:
    """config.json, safetensors in float32 and the tokenizer into `folder`, which exists. Raises UnsupportedModel."""
    be_offline()
    progress.stage("reading the GGUF file with transformers")
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments: dict[str, Any] = {"gguf_file": path.name, "dtype": torch.float32, "trust_remote_code": False}
    if hasattr(transformers, "GgufConfig"):  # later releases keep the blocks by default
        arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        model = AutoModelForCausalLM.from_pretrained(path.parent, **arguments)
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


_TEXTS = frozenset({".json", ".jinja", ".model", ".txt"})


def is_checkpoint(path: Path) -> bool:
    return path.is_dir() and (path / "config.json").is_file() and not any(path.rglob("*.onnx"))


def readable(path: Path, scratch: Path, progress: Progress, *, allow_pickle: bool) -> Path:
    """`path` itself, or `scratch` with what its pickles hold. Raises UnsupportedModel when they are not allowed, CorruptModel."""
    if not is_checkpoint(path) or any(path.glob("*.safetensors")):
        return path
    pickles = sorted([*path.glob("pytorch_model*.bin"), *path.glob("*.pt"), *path.glob("*.pth")])
    if not pickles:
        return path
    if not allow_pickle:
        raise UnsupportedModel(
            f"The weights of {path.name} are pickles ({pickles[0].name}), which can run code when they are read. Save the model "
            "with transformers' save_pretrained, or set `allow_pickle`: true, which reads nothing but tensors from them."
        )
    linked_texts(path, scratch)
    progress.stage("reading pickled weights")
    _rewrite(pickles, scratch, progress)
    return scratch


def linked_texts(source: Path, folder: Path) -> None:
    """Configuration and tokenizer; never code, and no index of the pickles."""
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in _TEXTS and not file.name.endswith(".bin.index.json"):
            (folder / file.name).symlink_to(file.resolve())


def _rewrite(pickles: list[Path], folder: Path, progress: Progress) -> None:
    from safetensors.torch import save_file

    places: dict[str, str] = {}
    for number, pickle in enumerate(pickles, 1):
        tensors = _tensors(pickle)
        name = pickle.with_suffix(".safetensors").name.replace("pytorch_model", "model")
        save_file(tensors, folder / name, {"format": "pt"})
        places |= dict.fromkeys(tensors, name)
        progress.update(number, len(pickles))
    if len(pickles) > 1:
        index = {"metadata": {}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _tensors(pickle: Path) -> dict[str, Any]:
    """torch's restricted unpickler refuses whatever is no tensor before it is made: nothing of the file runs."""
    from pickle import UnpicklingError

    import torch

    try:
        read = torch.load(pickle, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        why = str(error).strip().splitlines()
        raise CorruptModel(
            f"{pickle.name} is damaged, or holds more than tensors, so that reading it could run code; nothing of it was run "
            f"({type(error).__name__}{': ' + why[0] if why else ''}). Do not trust this model."
        ) from error
    if not isinstance(read, dict) or not all(isinstance(value, torch.Tensor) for value in read.values()):
        raise CorruptModel(f"{pickle.name} holds no table of tensors by name. Choose the model's weights, not a training state.")
    return {str(name): value.detach().clone().contiguous() for name, value in read.items()}  # tied ones share memory: none may
