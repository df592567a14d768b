"""Hugging Face checkpoints of the families that GGUF files are imported of, without PyTorch: safetensors and config.json.

A checkpoint is read as if it were a GGUF file with other names: its tensors are mapped where they lie, and the GGUF importer's
decoder, smoothing and measure do the rest. Pickled weights are refused: they can run code.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.importers.gguf import write_model
from model_registry.importers.gguf.architecture import FAMILIES, Architecture, read_architecture
from model_registry.importers.gguf.checkpoint import CLASSES, IN_LAYER, NORMS_AROUND, WHOLE
from model_registry.importers.gguf.genai_config import model_config, search_config
from model_registry.importers.gguf.metadata import Metadata, Value
from model_registry.importers.gguf.reader import GgufFile, TensorInfo
from model_registry.importers.gguf.tensors import EMBEDDING, check_tensors
from model_registry.importers.protocol import Imported, ImportOptions
from model_registry.progress import Progress

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

_TYPES = {"F32": ("F32", 4), "F16": ("F16", 2), "BF16": ("BF16", 2)}
_TEXTS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "special_tokens_map.json")
_NAMES = {kind: name for name, (kind, _) in CLASSES.items()} | {"mistral": "llama"}
_MAX_HEADER_BYTES = 100 << 20


class CheckpointImporter:
    """A folder with config.json, *.safetensors and tokenizer.json."""

    name = "checkpoint"

    def can_import(self, path: Path) -> bool:
        """Any folder with a config.json that names a model type, and no ONNX model."""
        return path.is_dir() and (path / "config.json").is_file() and not any(path.rglob("*.onnx"))

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        progress.stage("reading the checkpoint")
        config = _json(path / "config.json")
        source, architecture = open_model(path)
        if not (path / "tokenizer.json").is_file():
            raise UnsupportedModel(f"{path.name} has no tokenizer.json. Save it with transformers' fast tokenizer.")
        for name in _TEXTS:
            if (path / name).is_file():
                copyfile(path / name, destination / name)
        ends, wishes = _generation(path, config)
        vocab_size, bos, padding = source.tensors[EMBEDDING].shape[0], config.get("bos_token_id"), config.get("pad_token_id")
        model = model_config(architecture, vocab_size, bos=bos, ends=ends, padding=padding)
        genai = {"model": model, "search": search_config(architecture, wishes)}
        (destination / "genai_config.json").write_text(json.dumps(genai, indent=2) + "\n", encoding="utf-8")
        return write_model(source, architecture, destination, options, progress, None)


def open_model(path: Path) -> tuple[GgufFile, Architecture]:
    """A checkpoint's checked tensors, mapped, and its network. Raises CorruptModel, UnsupportedModel."""
    config = _json(path / "config.json")
    architecture = read_config(config)
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


def read_config(config: Mapping[str, Any]) -> Architecture:
    """The network that a config.json describes. Raises UnsupportedModel by name, CorruptModel for values that no model has."""
    kind = config.get("model_type")
    if kind not in _NAMES:
        raise UnsupportedModel(
            f"Checkpoints of the type {kind!r} are not imported; {', '.join(sorted(_NAMES))} are. "
            "Run a job `convert`, which has onnxruntime-genai's model builder for others."
        )
    name = _NAMES[kind]
    architecture = read_architecture(Metadata(dict(_values(name, config))))
    return replace(architecture, family=replace(FAMILIES[name], interleaved=False))


def _values(name: str, config: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """As the metadata of a GGUF file says it."""
    heads = config.get("num_attention_heads")
    named = {
        "embedding_length": config.get("hidden_size"),
        "feed_forward_length": config.get("intermediate_size"),
        "block_count": config.get("num_hidden_layers"),
        "context_length": config.get("max_position_embeddings"),
        "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads") or heads,
        "attention.key_length": config.get("head_dim"),
        "attention.layer_norm_rms_epsilon": config.get("rms_norm_eps", 1e-6),
        "expert_count": config.get("num_local_experts") or config.get("num_experts"),
    }
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        named["attention.sliding_window"] = config["sliding_window"]
    if name == "gemma3":
        named["attention.scale"] = config.get("query_pre_attn_scalar", 256) ** -0.5
        named |= {"attn_logit_softcapping": config.get("attn_logit_softcapping")}
        named |= {"final_logit_softcapping": config.get("final_logit_softcapping")}
    named |= _rope_values(name, config)
    yield "general.architecture", name
    yield from ((f"{name}.{key}", value) for key, value in named.items() if value is not None)


def _rope_values(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """From `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    given = config.get("rope_parameters") or {}
    local = given.get("sliding_attention", {})
    rope = given.get("full_attention", given) | (config.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    values: dict[str, Any] = {"rope.freq_base": float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))}
    if name == "gemma3":
        values["rope.freq_base_swa"] = float(local.get("rope_theta", config.get("rope_local_base_freq", 10000.0)))
    if kind == "default":
        return values
    values |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        original = rope.get("original_max_position_embeddings")
        values |= {"rope.scaling.original_context_length": original} if original else {}
        values |= {f"rope.scaling.yarn_{key}": float(rope[key]) for key in ("beta_fast", "beta_slow") if key in rope}
    return values


def open_checkpoint(path: Path, config: Mapping[str, Any], architecture: Architecture) -> CheckpointTensors:
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
        for theirs, info, place in _tensors_in(file):
            ours = names.get(theirs, theirs)
            if not (ours == "output.weight" and config.get("tie_word_embeddings")):
                tensors[ours], places[ours] = replace(info, name=ours), place
    is_gemma = architecture.name == "gemma3"
    added = {name: 1.0 for name in tensors if is_gemma and "norm" in name}
    return CheckpointTensors(Metadata({}), tensors, np.empty(0, np.uint8), places, added)


def _names(architecture: Architecture) -> dict[str, str]:
    """A checkpoint's names to a GGUF file's."""
    in_layer = IN_LAYER | (NORMS_AROUND if architecture.family.post_norms else {})
    names = {theirs: ours for ours, theirs in WHOLE.items()}
    for layer in range(architecture.num_layers):
        for ours, theirs in in_layer.items():
            for kind in ("weight", "bias"):
                names[f"model.layers.{layer}.{theirs}.{kind}"] = f"blk.{layer}.{ours}.{kind}"
    return names


def _tensors_in(file: Path) -> Iterator[tuple[str, TensorInfo, NDArray[np.uint8]]]:
    """(name, what it is, its bytes [rows, row_bytes]) of each tensor. The file stays mapped while the bytes are in use."""
    from gguf import GGMLQuantizationType

    if file.stat().st_size == 0:
        raise CorruptModel(f"{file.name} is empty. Fetch it again.")
    with file.open("rb") as opened:
        data = np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    size = struct.unpack("<Q", data[:8].tobytes())[0] if len(data) >= 8 else 0
    if not 0 < size <= min(_MAX_HEADER_BYTES, len(data) - 8):
        raise CorruptModel(f"{file.name} is no safetensors file, or is cut. Fetch it again.")
    try:
        header = json.loads(data[8 : 8 + size].tobytes())
    except ValueError:
        raise CorruptModel(f"The header of {file.name} is damaged. Fetch it again.") from None
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, *_tensor(file, name, entry, data[8 + size :], GGMLQuantizationType)


def _tensor(
    file: Path, name: str, entry: Mapping[str, Any], data: NDArray[np.uint8], kinds: type[GGMLQuantizationType]
) -> tuple[TensorInfo, NDArray[np.uint8]]:
    if entry["dtype"] not in _TYPES:
        raise UnsupportedModel(f"Tensor {name} of {file.name} is stored as {entry['dtype']}; {', '.join(_TYPES)} can be read.")
    kind, value_bytes = _TYPES[entry["dtype"]]
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not shape or not 0 <= begin <= end <= len(data) or end - begin != prod(shape) * value_bytes:
        raise CorruptModel(f"Tensor {name} of {file.name} does not lie where its header says. Fetch it again.")
    row_bytes = shape[-1] * value_bytes
    return TensorInfo(name, kinds[kind], shape, begin, row_bytes), data[begin:end].reshape(-1, row_bytes)


def _generation(path: Path, config: Mapping[str, Any]) -> tuple[list[int], dict[str, float]]:
    """(ids that end an answer, how it is to be sampled), from generation_config.json, else config.json."""
    generation = _json(path / "generation_config.json") if (path / "generation_config.json").is_file() else {}
    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    wishes = {name: generation[name] for name in names if generation.get("do_sample") and generation.get(name) is not None}
    return (ends if isinstance(ends, list) else [] if ends is None else [ends]), wishes


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise CorruptModel(f"{path.name} is not JSON. Fetch it again.") from None
    if not isinstance(content, dict):
        raise CorruptModel(f"{path.name} holds no JSON object. Fetch it again.")
    return content
