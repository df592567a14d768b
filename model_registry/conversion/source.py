"""The tensors that a llama-family GGUF file must, may and may not have. Pure: names and shapes, no values."""

from __future__ import annotations

from collections.abc import Mapping

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.formats.gguf.reader import TensorInfo
from model_registry.errors import CorruptModel, UnsupportedModel

EMBEDDING, HEAD, FINAL_NORM, ROPE_DIVISORS = (
    "token_embd.weight",
    "output.weight",
    "output_norm.weight",
    "rope_freqs.weight",
)
POST_ATTENTION_NORM, POST_FFN_NORM = "post_attention_norm", "post_ffw_norm"  # of each layer, as `blk.N.<name>.weight`


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
