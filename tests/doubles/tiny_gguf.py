"""Builds tiny random GGUF files of every supported family, and runs what was imported from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.importer import Imported

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("t h", "th e", "Ġ the", "i n", "Ġ a", "3 3", "Ċ Ċ", "Ġ Ġ")


@dataclass(frozen=True)
class Tiny:
    """What to write. tensors and metadata: added last, replacing what was there; None leaves out."""

    architecture: str = "llama"
    layers: int = 2
    hidden: int = 64
    ffn: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 16
    context: int = 64
    tied: bool = False
    qkv_bias: bool = False
    weight_type: str = "F32"
    tokenizer: str = "gpt2"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[np.float32] | None] = field(default_factory=dict)


GEMMA = Tiny("gemma3", layers=7, kv_heads=1, tied=True, metadata={"gemma3.attention.sliding_window": 9})


def byte_level_vocabulary() -> tuple[list[str], list[int]]:
    from tokenizers.pre_tokenizers import ByteLevel

    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*SPECIALS, *sorted(ByteLevel.alphabet()), *merged]
    return tokens, [3] * len(SPECIALS) + [1] * (len(tokens) - len(SPECIALS))


def sentencepiece_vocabulary() -> tuple[list[str], list[int], list[float]]:
    specials = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    pieces = ["▁the", "▁th", "he", "▁t", "in", "▁", *"thecapilofrnsd.,", "▁c", "at", "▁cat"]
    tokens = [*specials, *byte_tokens, *pieces]
    scores = [0.0] * (len(specials) + 256) + [-float(rank) for rank in range(len(pieces))]
    return tokens, [2, 3, 3] + [6] * 256 + [1] * len(pieces), scores


def _tokenizer_values(kind: str) -> dict[str, Any]:
    values: dict[str, Any] = {"tokenizer.ggml.model": kind}
    if kind == "gpt2":
        tokens, types = byte_level_vocabulary()
        values |= {"tokenizer.ggml.pre": "smollm", "tokenizer.ggml.merges": list(MERGES)}
        values |= {"tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 2}
    else:
        tokens, types, scores = sentencepiece_vocabulary()
        values |= {"tokenizer.ggml.scores": scores, "tokenizer.ggml.unknown_token_id": 0}
        values |= {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
    return values | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}


def _metadata(tiny: Tiny) -> dict[str, Any]:
    name = tiny.architecture
    values: dict[str, Any] = {
        f"{name}.block_count": tiny.layers,
        f"{name}.context_length": tiny.context,
        f"{name}.embedding_length": tiny.hidden,
        f"{name}.feed_forward_length": tiny.ffn,
        f"{name}.attention.head_count": tiny.heads,
        f"{name}.attention.head_count_kv": tiny.kv_heads,
        f"{name}.attention.key_length": tiny.head_size,
        f"{name}.attention.value_length": tiny.head_size,
        f"{name}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{name}.rope.freq_base": 1000.0,
        **_tokenizer_values(tiny.tokenizer),
        **tiny.metadata,
    }
    return {key: value for key, value in values.items() if value is not None}


def _tensors(tiny: Tiny, vocab_size: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(7)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * 1.5 / np.sqrt(columns)).astype(np.float32)

    def vector(size: int, around: float) -> NDArray[np.float32]:
        return (around + 0.3 * random.standard_normal(size)).astype(np.float32)

    query, kv = tiny.heads * tiny.head_size, tiny.kv_heads * tiny.head_size
    tensors = {"token_embd.weight": matrix(vocab_size, tiny.hidden), "output_norm.weight": vector(tiny.hidden, 1)}
    if not tiny.tied:
        tensors["output.weight"] = matrix(vocab_size, tiny.hidden)
    for layer in range(tiny.layers):
        block = f"blk.{layer}"
        tensors |= {f"{block}.{name}.weight": vector(tiny.hidden, 1) for name in ("attn_norm", "ffn_norm")}
        for name, rows, columns in (
            ("attn_q", query, tiny.hidden),
            ("attn_k", kv, tiny.hidden),
            ("attn_v", kv, tiny.hidden),
            ("attn_output", tiny.hidden, query),
            ("ffn_gate", tiny.ffn, tiny.hidden),
            ("ffn_up", tiny.ffn, tiny.hidden),
            ("ffn_down", tiny.hidden, tiny.ffn),
        ):
            tensors[f"{block}.{name}.weight"] = matrix(rows, columns)
        if tiny.qkv_bias:
            tensors |= {f"{block}.attn_{n}.bias": vector(s, 0) for n, s in (("q", query), ("k", kv), ("v", kv))}
        if tiny.architecture in ("qwen3", "gemma3"):
            tensors |= {f"{block}.attn_{n}_norm.weight": vector(tiny.head_size, 1) for n in ("q", "k")}
        if tiny.architecture == "gemma3":
            tensors |= {f"{block}.post_{n}_norm.weight": vector(tiny.hidden, 1) for n in ("attention", "ffw")}
    chosen = {**tensors, **tiny.tensors}
    return {name: value for name, value in chosen.items() if value is not None}


def write_gguf(path: Path, tiny: Tiny) -> Path:
    """Matrices in `weight_type`, everything else in F32."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(path, tiny.architecture)
    values = _metadata(tiny)
    for key, value in values.items():
        _add(writer, key, value)
    tokens = values.get("tokenizer.ggml.tokens", ["x"] * 300)
    for name, tensor in _tensors(tiny, len(tokens) + -len(tokens) % 8).items():
        kind = GGMLQuantizationType[tiny.weight_type] if tensor.ndim > 1 else GGMLQuantizationType.F32
        if kind is GGMLQuantizationType.F32:
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def open_session(folder: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class ImportedFolder:
    """A tiny model after its import."""

    source: Path
    folder: Path
    imported: Imported

    def session(self) -> Any:
        return open_session(self.folder)


ImportTiny = Callable[..., ImportedFolder]


def run_graph(
    session: Any, ids: Sequence[int], past: Mapping[str, NDArray[np.float32]] | None = None
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """(logits [tokens, vocabulary], the present as the next call's past) of one row."""
    inputs = {value.name: value for value in session.get_inputs()}
    if past is None:
        past = {
            name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
            for name, value in inputs.items()
            if name.startswith("past_key_values")
        }
    length = next(iter(past.values())).shape[2] + len(ids)
    mask = np.ones((1, length), np.int64)
    results = session.run(None, {"input_ids": np.array([ids], np.int64), "attention_mask": mask, **past})
    names = [value.name.replace("present", "past_key_values") for value in session.get_outputs()]
    outputs = dict(zip(names, results, strict=True))
    return outputs.pop("logits")[0], outputs
