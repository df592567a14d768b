"""Hugging Face checkpoints of the families that GGUF files are imported of, without PyTorch: safetensors and config.json.

A checkpoint is read as if it were a GGUF file with other names: its tensors are mapped where they lie, and the GGUF importer's
decoder, smoothing and measure do the rest. Pickled weights are refused: they can run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.decoder.genai_config import NO_END, model_config, search_config
from model_registry.conversion.formats.checkpoint.config import FILE, CheckpointConfig, architecture_of, read_config
from model_registry.conversion.formats.checkpoint.safetensors_file import StoredTensor, open_safetensors
from model_registry.conversion.formats.checkpoint.writer import IN_LAYER, NORMS_AROUND, WHOLE
from model_registry.conversion.formats.gguf.importer import write_model
from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.reader import GgufFile, TensorInfo
from model_registry.conversion.formats.model_texts import check_texts, ids_of, load_tokenizer, read_generation
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.conversion.source import EMBEDDING, check_tensors
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.progress import Progress

_VALUE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_TEXTS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "special_tokens_map.json")
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class CheckpointImporter:
    """A folder with config.json, *.safetensors and tokenizer.json."""

    name = "checkpoint"

    def can_import(self, path: Path) -> bool:
        """Any folder with a config.json that names a model type, and no ONNX model."""
        return path.is_dir() and (path / FILE).is_file() and not any(path.rglob("*.onnx"))

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        """Everything that can be refused is refused before the first weight is written."""
        progress.stage("reading the checkpoint")
        config = read_config(path)
        source, architecture = open_model(path)
        if not (path / "tokenizer.json").is_file():
            raise UnsupportedModel(f"{path.name} has no tokenizer.json. Save it with transformers' fast tokenizer.")
        for name in _TEXTS:
            if (path / name).is_file():
                copyfile(path / name, destination / name)
        load_tokenizer(destination / "tokenizer.json")
        vocab_size = source.tensors[EMBEDDING].shape[0]
        if config.vocab_size not in (None, vocab_size):
            raise CorruptModel(f"{FILE} has vocab_size {config.vocab_size}, and the weights {vocab_size} rows. Fetch it again.")
        ends, wishes = _generation(path, config)
        bos, padding = _token(config.bos_token_id, vocab_size), _token(config.pad_token_id, vocab_size)
        model = model_config(architecture, vocab_size, bos=bos, ends=ends, padding=padding)
        genai = {"model": model, "search": search_config(architecture, wishes)}
        (destination / "genai_config.json").write_text(json.dumps(genai, indent=2) + "\n", encoding="utf-8")
        check_texts(destination)
        imported = write_model(source, architecture, destination, options, progress, None)
        return imported if ends else replace(imported, warnings=(*imported.warnings, NO_END))


def open_model(path: Path) -> tuple[GgufFile, Architecture]:
    """A checkpoint's checked tensors, mapped, and its network. Raises CorruptModel, UnsupportedModel."""
    config = read_config(path)
    architecture = architecture_of(config)
    source = open_checkpoint(path, config, architecture)
    check_tensors(source.tensors, architecture)
    return source, architecture


@dataclass(frozen=True, slots=True)
class CheckpointTensors(GgufFile):
    """places: each tensor's bytes, [rows, row_bytes], where they lie. added: by name, what values need on top."""

    places: Mapping[str, NDArray[np.uint8]]
    added: Mapping[str, float]

    def raw(self, name: str) -> NDArray[np.uint8]:
        return self.places[name]

    def dequantized(self, name: str) -> NDArray[np.float32]:
        values = GgufFile.dequantized(self, name)
        return values + np.float32(self.added[name]) if name in self.added else values


def open_checkpoint(path: Path, config: CheckpointConfig, architecture: Architecture) -> CheckpointTensors:
    """Maps the weights. Raises CorruptModel, UnsupportedModel."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickled = any(path.glob("*.bin")) or any(path.glob("*.pt"))
        why = "its weights are pickles, which can run code" if pickled else "it has no *.safetensors"
        raise UnsupportedModel(f"{path.name} cannot be imported: {why}. Save it with transformers' save_pretrained.")
    names = _names(architecture)
    tensors: dict[str, TensorInfo] = {}
    places: dict[str, NDArray[np.uint8]] = {}
    for file in files:
        for theirs, stored in open_safetensors(file).items():
            ours = names.get(theirs, theirs)
            if ours in tensors:
                raise CorruptModel(f"Tensor {theirs} stands twice in the checkpoint, also in {file.name}. Fetch it again.")
            if not (ours == "output.weight" and config.tie_word_embeddings):
                tensors[ours], places[ours] = _placed(file, theirs, ours, stored)
    is_gemma = architecture.name == "gemma3"
    added = {name: 1.0 for name in tensors if is_gemma and "norm" in name}
    return CheckpointTensors(Metadata({}, FILE), tensors, np.empty(0, np.uint8), places, added)


def _names(architecture: Architecture) -> dict[str, str]:
    """A checkpoint's names to a GGUF file's."""
    in_layer = IN_LAYER | (NORMS_AROUND if architecture.family.post_norms else {})
    names = {theirs: ours for ours, theirs in WHOLE.items()}
    for layer in range(architecture.num_layers):
        for ours, theirs in in_layer.items():
            for kind in ("weight", "bias"):
                names[f"model.layers.{layer}.{theirs}.{kind}"] = f"blk.{layer}.{ours}.{kind}"
    return names


def _placed(file: Path, theirs: str, ours: str, stored: StoredTensor) -> tuple[TensorInfo, NDArray[np.uint8]]:
    """A tensor by the name that it has in GGUF files, and its bytes, [rows, row_bytes]."""
    from gguf import GGMLQuantizationType

    value_bytes = _VALUE_BYTES.get(stored.dtype)
    if value_bytes is None:
        known = ", ".join(_VALUE_BYTES)
        raise UnsupportedModel(f"Tensor {theirs} of {file.name} is stored as {stored.dtype}; {known} can be read.")
    if 0 in stored.shape or not stored.shape:
        raise CorruptModel(f"Tensor {theirs} of {file.name} has the shape {list(stored.shape)}. Fetch it again.")
    row_bytes = stored.shape[-1] * value_bytes
    info = TensorInfo(ours, GGMLQuantizationType[stored.dtype], stored.shape, 0, row_bytes)
    return info, stored.data.reshape(-1, row_bytes)


def _generation(path: Path, config: CheckpointConfig) -> tuple[list[int], dict[str, float]]:
    """(ids that end an answer, how it is to be sampled), from generation_config.json, else config.json."""
    generation = read_generation(path)
    ends = config.eos_token_id if generation.eos_token_id is None else generation.eos_token_id
    said = {name: getattr(generation, name) for name in _SAMPLING} if generation.do_sample else {}
    return ids_of(ends), {name: value for name, value in said.items() if value is not None}


def _token(said: int | None, vocab_size: int) -> int | None:
    """Some configurations say -1 for none."""
    return said if said is not None and 0 <= said < vocab_size else None
