"""Writes a real, tiny decoder folder: two layers of GroupQueryAttention, weights set by hand, and answers known in advance.

The next token is the last one plus one, until END; and the attention is real: it looks at the whole context, and what it finds is
added to the logits, too little to change which is largest, enough to change their bits. A token from a wrong row is seen, and so is
one that is missing.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCAB, END, CONTEXT = 64, 63, 128
LAYERS, HEADS, HEAD_SIZE = 2, 2, 16
HIDDEN = HEADS * HEAD_SIZE
STEP_LOGIT = 30.0  # of the next token; what attention adds stays far below
ALPHABET = [chr(code) for code in range(33, 33 + END)]  # token n is this character; END is special


def write_synthetic_decoder(
    folder: Path, *, attention: str = "GroupQueryAttention", position_ids: bool = False, eos: int = END
) -> Path:
    """A folder as onnxruntime-genai has them. position_ids: the graph also takes them, and adds their values to the logits."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_model(attention, position_ids), folder / "model.onnx")
    decoder = {
        "filename": "model.onnx",
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "head_size": HEAD_SIZE,
        "inputs": {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
        "outputs": {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
    }
    model = {"type": "synthetic", "context_length": CONTEXT, "vocab_size": VOCAB, "eos_token_id": [eos], "decoder": decoder}
    (folder / "genai_config.json").write_text(json.dumps({"model": model, "search": {}}))
    _tokenizer().save(str(folder / "tokenizer.json"))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(ALPHABET)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


def _model(attention: str, position_ids: bool) -> onnx.ModelProto:
    weights = _weights()
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["x0"]),
        helper.make_node("ReduceSum", ["attention_mask", "one"], ["lengths"], keepdims=1),
        helper.make_node("Sub", ["lengths", "one"], ["last_places"]),
        helper.make_node("Cast", ["last_places"], ["seqlens_k"], to=TensorProto.INT32),
        helper.make_node("Shape", ["attention_mask"], ["mask_shape"]),
        helper.make_node("Gather", ["mask_shape", "one_scalar"], ["mask_length"]),
        helper.make_node("Cast", ["mask_length"], ["total_length"], to=TensorProto.INT32),
    ]
    for layer in range(LAYERS):
        nodes += _layer(layer, attention)
    hidden = f"x{LAYERS}"
    if position_ids:
        nodes += [
            helper.make_node("Cast", ["position_ids"], ["places"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["places", "two"], ["places_column"]),
            helper.make_node("Mul", ["places_column", "place_direction"], ["place_part"]),
            helper.make_node("Add", [hidden, "place_part"], ["placed"]),
        ]
        hidden = "placed"
    nodes.append(helper.make_node("MatMul", [hidden, "head"], ["logits"]))
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "synthetic", _inputs(position_ids), _outputs(), initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _layer(layer: int, attention: str) -> list[onnx.NodeProto]:
    """Attention over a projection of the embedding, added to the residual stream."""
    past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
    present = [f"present.{layer}.key", f"present.{layer}.value"]
    attend = [f"q{layer}", f"k{layer}", f"v{layer}", *past, "seqlens_k", "total_length"]
    return [
        *(helper.make_node("MatMul", [f"x{layer}", f"{part}_weight{layer}"], [f"{part}{layer}"]) for part in "qkv"),
        helper.make_node(attention, attend, [f"a{layer}", *present], domain="com.microsoft", num_heads=HEADS, kv_num_heads=HEADS),
        helper.make_node("Add", [f"x{layer}", f"a{layer}"], [f"x{layer + 1}"]),
    ]


def _weights() -> dict[str, NDArray[np.generic]]:
    """Embeddings are random directions; the head reads the direction of token n as the logit of n + 1."""
    random = np.random.default_rng(0)
    embedding = random.standard_normal((VOCAB, HIDDEN)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    projections = {
        f"{part}_weight{layer}": (random.standard_normal((HIDDEN, HIDDEN)) * (0.01 if part == "v" else 0.5)).astype(np.float32)
        for layer in range(LAYERS)
        for part in "qkv"
    }
    constants = {"one": np.array([1], np.int64), "one_scalar": np.array(1, np.int64), "two": np.array([2], np.int64)}
    return {
        "embedding": embedding,
        "head": np.ascontiguousarray(STEP_LOGIT * np.roll(embedding, 1, axis=0).T),
        "place_direction": (random.standard_normal(HIDDEN) * 1e-4).astype(np.float32),
        **projections,
        **constants,
    }


def _inputs(position_ids: bool) -> list[onnx.ValueInfoProto]:
    cache: list[str | int | None] = ["batch", HEADS, "past_length", HEAD_SIZE]
    return [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
        *([helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "length"])] if position_ids else []),
        *(
            helper.make_tensor_value_info(f"past_key_values.{layer}.{part}", TensorProto.FLOAT, cache)
            for layer in range(LAYERS)
            for part in ("key", "value")
        ),
    ]


def _outputs() -> list[onnx.ValueInfoProto]:
    cache: list[str | int | None] = ["batch", HEADS, "total_length", HEAD_SIZE]
    return [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", VOCAB]),
        *(
            helper.make_tensor_value_info(f"present.{layer}.{part}", TensorProto.FLOAT, cache)
            for layer in range(LAYERS)
            for part in ("key", "value")
        ),
    ]
