"""Tiny ONNX folders for the importer: the shape of a decoder without any sense in its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

VOCABULARY, HIDDEN, HEADS, HEAD_SIZE, CONTEXT = 16, 8, 2, 4, 64

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "num_hidden_layers": 1,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def genai_config(filename: str = "model.onnx", **model: Any) -> dict[str, Any]:
    decoder = {"filename": filename, "session_options": {"provider_options": []}}
    return {"model": {"type": "llama", "context_length": CONTEXT, "decoder": decoder} | model, "search": {}}


def write_graph(path: Path, *, attention: str = "GroupQueryAttention", bits: int = 8, seed: int = 0) -> None:
    """A decoder of one layer; `bits` is written on a MatMulNBits node, 0 leaves plain weights only."""
    weights = np.random.default_rng(seed).standard_normal((VOCABULARY, HIDDEN)).astype(np.float32)
    cache = ["batch", HEADS, "past", HEAD_SIZE]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "total"]),
        *(helper.make_tensor_value_info(f"past_key_values.0.{part}", TensorProto.FLOAT, cache) for part in ("key", "value")),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", VOCABULARY]),
        *(helper.make_tensor_value_info(f"present.0.{part}", TensorProto.FLOAT, cache) for part in ("key", "value")),
    ]
    nodes = [
        helper.make_node("Gather", ["embedding", "input_ids"], ["x"]),
        helper.make_node(
            attention,
            ["x", "x", "x", "past_key_values.0.key", "past_key_values.0.value", "attention_mask", "attention_mask"],
            ["y", "present.0.key", "present.0.value"],
            domain="com.microsoft",
        ),
        helper.make_node("MatMulNBits", ["y", "embedding", "embedding"], ["logits"], domain="com.microsoft", bits=bits)
        if bits
        else helper.make_node("MatMul", ["y", "embedding"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, [numpy_helper.from_array(weights, "embedding")])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)


def move_weights(path: Path, location: str, *, write: bool = True) -> None:
    """The graph's weights move to the external file `location`, which is written by default."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        data = bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
            tensor.external_data.add(key=key, value=value)
        if write:
            (path.parent / location).write_bytes(data)
    path.write_bytes(model.SerializeToString())


def write_tokenizer(folder: Path) -> None:
    Tokenizer(WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a")).save(str(folder / "tokenizer.json"))


def write_genai_folder(folder: Path, *, bits: int = 8, seed: int = 0) -> Path:
    """A sound onnxruntime-genai folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(folder / "model.onnx", bits=bits, seed=seed)
    write_tokenizer(folder)
    (folder / "genai_config.json").write_text(json.dumps(genai_config()))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def write_browser_export(folder: Path) -> Path:
    """A sound browser export: the graph in `onnx`, its weights beside it, no genai_config.json."""
    (folder / "onnx").mkdir(parents=True)
    write_graph(folder / "onnx" / "model_q4.onnx", bits=4)
    move_weights(folder / "onnx" / "model_q4.onnx", "model_q4.onnx_data")
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3], "temperature": 0.6}))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
