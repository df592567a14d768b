"""A model's weights on disk, whatever their format: the contract between the formats and all that reads weights.

Owns the names that tensors have here (llama.cpp's) and the shapes that a network calls for. Reads no file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.quantizers.rtn import Blocks
from model_registry.errors import CorruptModel, UnsupportedModel

Floats = NDArray[np.float32]
Rows = slice | NDArray[np.integer]  # which rows of a matrix, in which order
ALL_ROWS = slice(None)

EMBEDDING, HEAD, FINAL_NORM, ROPE_DIVISORS = (
    "token_embd.weight",
    "output.weight",
    "output_norm.weight",
    "rope_freqs.weight",
)
POST_ATTENTION_NORM, POST_FFN_NORM = "post_attention_norm", "post_ffw_norm"  # of each layer, as `blk.N.<name>.weight`


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """shape: as NumPy has it, rows first. dtype: how the file stores the values, in the format's own word, e.g. `Q4_K`.

    exact_bits: 4 or 8 where these are blocks of 32 integers with a scale each, which need no rounding to be stored; else None.
    """

    shape: tuple[int, ...]
    dtype: str
    exact_bits: int | None = None

    @property
    def columns(self) -> int:
        return self.shape[-1]

    @property
    def num_rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def num_values(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What the files beside the weights say. bos, padding: token ids; ends: those that end an answer.

    sampling: how answers are to be sampled, by genai_config.json's names, as far as the source says. licence: SPDX, or None.
    warnings: what is wrong with them and only limits the model, in whole sentences.
    """

    bos: int | None
    ends: tuple[int, ...]
    padding: int | None
    sampling: Mapping[str, float]
    licence: str | None = None
    warnings: tuple[str, ...] = ()


class TensorSource(Protocol):
    """A model in one foreign format, checked and open. Keep its files unchanged while it is in use.

    Every method that reads values raises CorruptModel for those that are not finite, UnsupportedModel for a storage type that
    cannot be read.
    """

    @property
    def architecture(self) -> Architecture:
        """The network; `check_tensors` has passed."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """By the names that tensors have here, in the order of the files."""

    def read(self, name: str) -> Floats:
        """The whole tensor, in its own shape."""

    def read_rows(self, name: str, rows: Rows) -> Floats:
        """[rows, columns] of a matrix; nothing else of it is read."""

    def read_blocks(self, name: str, rows: Rows, bits: int) -> Blocks:
        """Rows of a tensor whose `exact_bits` are at most `bits`, as blocks of 32; exactly what the file holds."""

    def write_texts(self, folder: Path) -> TextFacts:
        """Write `tokenizer.json`, `tokenizer_config.json` and whatever else belongs beside the weights.

        Raises CorruptModel, UnsupportedModel.
        """


def check_finite(values: Floats, name: str) -> Floats:
    """The values of a tensor. Raises CorruptModel if one is not finite."""
    if not np.isfinite(values).all():
        raise CorruptModel(f"Tensor {name} holds values that are not finite numbers. The file is damaged; fetch it again.")
    return values


def vocab_size(source: TensorSource) -> int:
    """Rows of the embedding, which may exceed the tokens."""
    return source.tensors[EMBEDDING].num_rows


def num_parameters(source: TensorSource) -> int:
    return sum(info.num_values for info in source.tensors.values())


def check_tensors(tensors: Mapping[str, TensorInfo], architecture: Architecture) -> None:
    """Raises CorruptModel for a missing or misshapen tensor, UnsupportedModel for one that the network would ignore."""
    if EMBEDDING not in tensors:
        raise _missing(EMBEDDING)
    vocab_size = tensors[EMBEDDING].shape[0]
    required = _required(architecture, vocab_size)
    optional = _optional(architecture, vocab_size)
    for name in required:
        if name not in tensors:
            raise _missing(name)
    shapes = required | optional
    unknown = [name for name in tensors if name not in shapes and not name.endswith("attn_rot_embd")]
    if unknown:
        raise UnsupportedModel(
            f"The model has {len(unknown)} tensors that {architecture.name} does not use here, such as "
            f"{unknown[0]!r}: it is a variant that slmops cannot run. Choose another conversion of the model."
        )
    for name, info in tensors.items():
        if name in shapes and info.shape != shapes[name]:
            raise CorruptModel(
                f"Tensor {name} has shape {list(info.shape)} where the metadata calls for {list(shapes[name])}. "
                "The file is damaged or was converted wrongly; fetch it again."
            )


def _missing(name: str) -> CorruptModel:
    return CorruptModel(f"The model has no tensor {name}. It is incomplete; fetch it again.")


def _required(architecture: Architecture, vocab_size: int) -> dict[str, tuple[int, ...]]:
    hidden, ffn = architecture.hidden_size, architecture.ffn_size
    query, kv = architecture.query_size, architecture.kv_size
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (vocab_size, hidden), FINAL_NORM: (hidden,)}
    for layer in range(architecture.num_layers):
        block: dict[str, tuple[int, ...]] = {
            "attn_norm": (hidden,),
            "attn_q": (query, hidden),
            "attn_k": (kv, hidden),
            "attn_v": (kv, hidden),
            "attn_output": (hidden, query),
            "ffn_norm": (hidden,),
            "ffn_gate": (ffn, hidden),
            "ffn_up": (ffn, hidden),
            "ffn_down": (hidden, ffn),
        }
        if architecture.family.query_key_norm:
            block |= {"attn_q_norm": (architecture.head_size,), "attn_k_norm": (architecture.head_size,)}
        if architecture.family.post_norms:
            block |= {POST_ATTENTION_NORM: (hidden,), POST_FFN_NORM: (hidden,)}
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def _optional(architecture: Architecture, vocab_size: int) -> dict[str, tuple[int, ...]]:
    sizes = {
        "attn_q": architecture.query_size,
        "attn_k": architecture.kv_size,
        "attn_v": architecture.kv_size,
        "attn_output": architecture.hidden_size,
        "ffn_gate": architecture.ffn_size,
        "ffn_up": architecture.ffn_size,
        "ffn_down": architecture.hidden_size,
    }
    shapes: dict[str, tuple[int, ...]] = {
        HEAD: (vocab_size, architecture.hidden_size),
        ROPE_DIVISORS: (architecture.head_size // 2,),
    }
    for layer in range(architecture.num_layers):
        shapes |= {f"blk.{layer}.{name}.bias": (size,) for name, size in sizes.items()}
    return shapes
