"""Any source as a Hugging Face checkpoint: config.json and model.safetensors, for training to begin from. Without PyTorch.

Weights are those that importers read, as float32: rotary rows are put back in halves, norms of gemma3 lose the 1 that
llama.cpp's converter adds. Knows nothing of tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import Activation, Architecture, Rope, RopeScaling
from model_registry.conversion.decoder.matrix import rotary_order
from model_registry.conversion.source import EMBEDDING, FINAL_NORM, HEAD, ROPE_DIVISORS, TensorSource, vocab_size
from model_registry.errors import UnsupportedModel

WEIGHTS = "model.safetensors"
_PER_LAYER = frozenset(("layer_types", "no_rope_layers"))  # a configuration's lists with an entry per layer
CLASSES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "smollm3": ("smollm3", "SmolLM3ForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
}
WHOLE = {EMBEDDING: "model.embed_tokens.weight", FINAL_NORM: "model.norm.weight", HEAD: "lm_head.weight"}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS_AROUND = {  # where norms also follow
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def write_checkpoint(source: TensorSource, folder: Path, *, bos_id: int | None, eos_ids: list[int]) -> None:
    """Writes both files into `folder`. Raises CorruptModel, UnsupportedModel."""
    from safetensors.numpy import save_file

    config = checkpoint_config(source) | {"bos_token_id": bos_id, "eos_token_id": eos_ids}
    save_file(dict(_tensors(source)), folder / WEIGHTS, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def checkpoint_config(source: TensorSource) -> dict[str, Any]:
    """The config.json for transformers 5. Raises UnsupportedModel for a rotary scaling that it cannot express."""
    architecture = source.architecture
    if ROPE_DIVISORS in source.tensors:
        raise UnsupportedModel(
            "This GGUF file holds Llama 3's rotary factors, whose parameters its checkpoint needs and the file does not have. "
            "Convert the model's Hugging Face checkpoint instead."
        )
    model_type, name = CLASSES[architecture.name]
    config: dict[str, Any] = {
        "architectures": [name],
        "model_type": model_type,
        "dtype": "float32",
        "vocab_size": vocab_size(source),
        "hidden_size": architecture.hidden_size,
        "intermediate_size": architecture.ffn_size,
        "num_hidden_layers": architecture.num_layers,
        "num_attention_heads": architecture.num_heads,
        "num_key_value_heads": architecture.num_kv_heads,
        "head_dim": architecture.head_size,
        "rms_norm_eps": architecture.norm_epsilon,
        "max_position_embeddings": architecture.context_length,
        "tie_word_embeddings": HEAD not in source.tensors,
        "rope_parameters": _rope(architecture.rope),
        "attention_bias": "blk.0.attn_q.bias" in source.tensors,
        "pad_token_id": None,
    }
    if architecture.family.activation is Activation.SILU:
        config["hidden_act"] = "silu"
    if architecture.family.nope_interval:
        config["no_rope_layers"] = [int(architecture.rotates(layer)) for layer in range(architecture.num_layers)]
    if architecture.name == "gemma3":
        config |= _gemma(architecture)
    elif architecture.sliding_window is not None:
        raise UnsupportedModel(f"Checkpoints of {architecture.name} with a sliding window are not written. Use its own checkpoint.")
    return config


def _gemma(architecture: Architecture) -> dict[str, Any]:
    windows = [architecture.window(layer) for layer in range(architecture.num_layers)]
    local = architecture.local_rope or architecture.rope
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": round(architecture.attention_scale**-2),
        "sliding_window": architecture.sliding_window or architecture.context_length,
        "layer_types": ["full_attention" if window is None else "sliding_attention" for window in windows],
        "rope_parameters": {"full_attention": _rope(architecture.rope), "sliding_attention": _rope(local)},
    }


def _rope(rope: Rope) -> dict[str, Any]:
    if rope.scaling is RopeScaling.NONE:
        return {"rope_type": "default", "rope_theta": rope.theta}
    if rope.scaling is RopeScaling.LINEAR:
        return {"rope_type": "linear", "rope_theta": rope.theta, "factor": rope.factor}
    return {
        "rope_type": "yarn",
        "rope_theta": rope.theta,
        "factor": rope.factor,
        "original_max_position_embeddings": rope.original_context,
        "beta_fast": rope.beta_fast,
        "beta_slow": rope.beta_slow,
        "attention_factor": rope.magnitude,
    }


def _tensors(source: TensorSource) -> Iterator[tuple[str, NDArray[np.float32]]]:
    architecture = source.architecture
    names = IN_LAYER | (NORMS_AROUND if architecture.family.post_norms else {})
    heads = {"attn_q": architecture.num_heads, "attn_k": architecture.num_kv_heads}
    for name in source.tensors:
        if name in WHOLE:
            yield WHOLE[name], _value(source, name)
        elif name.startswith("blk."):
            _, layer, part, kind = name.split(".")
            if part not in names:
                continue  # rotary tables that conversions of old carry
            value = _value(source, name)
            if architecture.family.interleaved and part in heads:
                value = value[rotary_order(heads[part], architecture.head_size)]
            yield f"model.layers.{layer}.{names[part]}.{kind}", np.ascontiguousarray(value)


def _value(source: TensorSource, name: str) -> NDArray[np.float32]:
    value = source.read(name)
    is_norm = "norm" in name
    return value - np.float32(1) if is_norm and source.architecture.name == "gemma3" else value


def check_layers_alike(folder: Path) -> None:
    """Raises UnsupportedModel when a checkpoint's layers are of several kinds in turn: without some, the turns would be others."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if any(len(set(config.get(name) or ())) > 1 for name in _PER_LAYER):
        raise UnsupportedModel(f"Layers of a {config['model_type']} are of several kinds: name a smaller model as the student.")


def keep_layers(folder: Path, layers: Sequence[int]) -> None:
    """Rewrites a checkpoint's config.json for these of its layers."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["num_hidden_layers"] = len(layers)
    for name in _PER_LAYER & config.keys():
        config[name] = [config[name][layer] for layer in layers]
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
