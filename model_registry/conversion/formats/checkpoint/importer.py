"""Hugging Face checkpoints of the families that GGUF files are imported of: the importer, and a folder as a `TensorSource`.

Read are safetensors and config.json, without PyTorch. Pickled weights are refused: they can run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

import numpy as np

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.formats.checkpoint.config import FILE, CheckpointConfig, architecture_of, read_config
from model_registry.conversion.formats.checkpoint.safetensors_file import READABLE, StoredTensor, open_safetensors
from model_registry.conversion.formats.checkpoint.writer import IN_LAYER, NORMS_AROUND, WHOLE
from model_registry.conversion.formats.model_texts import ids_of, load_tokenizer, read_generation
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.conversion.quantizers.rtn import Blocks
from model_registry.conversion.source import EMBEDDING, HEAD, Floats, Rows, TensorInfo, TextFacts, check_finite, check_tensors
from model_registry.conversion.writing import write_model
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.progress import Progress

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
        return write_model(open_checkpoint(path), destination, options, progress)


@dataclass(frozen=True, slots=True)
class CheckpointSource:
    """stored: by the names that tensors have here. Made by `open_checkpoint`."""

    folder: Path
    config: CheckpointConfig
    architecture: Architecture
    tensors: Mapping[str, TensorInfo]
    stored: Mapping[str, StoredTensor]

    def read(self, name: str) -> Floats:
        values = check_finite(self.stored[name].read(), name)
        return values + np.float32(1) if self._is_offset(name) else values

    def read_rows(self, name: str, rows: Rows) -> Floats:
        return check_finite(self.stored[name].read_rows(rows), name)

    def read_blocks(self, name: str, rows: Rows, bits: int) -> Blocks:
        raise AssertionError(f"{name} is no tensor of blocks: no checkpoint has any")

    def write_texts(self, folder: Path) -> TextFacts:
        if not (self.folder / "tokenizer.json").is_file():
            raise UnsupportedModel(f"{self.folder.name} has no tokenizer.json. Save it with transformers' fast tokenizer.")
        for name in _TEXTS:
            if (self.folder / name).is_file():
                copyfile(self.folder / name, folder / name)
        load_tokenizer(folder / "tokenizer.json")
        config, num_rows = self.config, self.tensors[EMBEDDING].num_rows
        if config.vocab_size not in (None, num_rows):
            raise CorruptModel(f"{FILE} has vocab_size {config.vocab_size}, and the weights {num_rows} rows. Fetch it again.")
        generation = read_generation(self.folder)
        ends = config.eos_token_id if generation.eos_token_id is None else generation.eos_token_id
        sampling = {name: getattr(generation, name) for name in _SAMPLING} if generation.do_sample else {}
        return TextFacts(
            bos=_token(config.bos_token_id, num_rows),
            ends=tuple(ids_of(ends)),
            padding=_token(config.pad_token_id, num_rows),
            sampling={name: value for name, value in sampling.items() if value is not None},
        )

    def _is_offset(self, name: str) -> bool:
        """Whether a checkpoint has the tensor less 1: gemma3 does so with its norms."""
        return self.architecture.name == "gemma3" and "norm" in name


def open_checkpoint(path: Path) -> CheckpointSource:
    """Maps the weights. Raises CorruptModel, UnsupportedModel."""
    config = read_config(path)
    architecture = architecture_of(config)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickled = any(path.glob("*.bin")) or any(path.glob("*.pt"))
        why = "its weights are pickles, which can run code" if pickled else "it has no *.safetensors"
        raise UnsupportedModel(f"{path.name} cannot be imported: {why}. Save it with transformers' save_pretrained.")
    names = _names(architecture)
    stored: dict[str, StoredTensor] = {}
    for file in files:
        for theirs, tensor in open_safetensors(file).items():
            ours = names.get(theirs, theirs)
            if ours in stored:
                raise CorruptModel(f"Tensor {theirs} stands twice in the checkpoint, also in {file.name}. Fetch it again.")
            if not (ours == HEAD and config.tie_word_embeddings):
                _check_readable(tensor, file)
                stored[ours] = tensor
    tensors = {name: TensorInfo(tensor.shape, tensor.dtype) for name, tensor in stored.items()}
    check_tensors(tensors, architecture)
    return CheckpointSource(path, config, architecture, tensors, stored)


def _names(architecture: Architecture) -> dict[str, str]:
    """A checkpoint's names to those that tensors have here."""
    in_layer = IN_LAYER | (NORMS_AROUND if architecture.family.post_norms else {})
    names = {theirs: ours for ours, theirs in WHOLE.items()}
    for layer in range(architecture.num_layers):
        for ours, theirs in in_layer.items():
            for kind in ("weight", "bias"):
                names[f"model.layers.{layer}.{theirs}.{kind}"] = f"blk.{layer}.{ours}.{kind}"
    return names


def _check_readable(tensor: StoredTensor, file: Path) -> None:
    if tensor.dtype not in READABLE:
        known = ", ".join(READABLE)
        raise UnsupportedModel(f"Tensor {tensor.name} of {file.name} is stored as {tensor.dtype}; {known} can be read.")
    if 0 in tensor.shape or not tensor.shape:
        raise CorruptModel(f"Tensor {tensor.name} of {file.name} has the shape {list(tensor.shape)}. Fetch it again.")


def _token(token_id: int | None, vocab_size: int) -> int | None:
    """Some configurations use -1 for none."""
    return token_id if token_id is not None and 0 <= token_id < vocab_size else None
