"""A tiny decoder whose attention is made of plain operators: what our batching cannot run, and onnxruntime-genai can.

It is the synthetic decoder with each GroupQueryAttention written out: past and present are two tensors, and masking is causal only.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from tests.doubles.synthetic_decoder import HEAD_SIZE, HEADS, HIDDEN, write_synthetic_decoder


def write_genai_decoder(folder: Path, *, plain: bool = False) -> Path:
    """The synthetic decoder as onnxruntime-genai wants it: of a type that it knows."""
    write_synthetic_decoder(folder)
    config = json.loads((folder / "genai_config.json").read_text())
    config["model"]["type"] = "llama"
    config["model"]["decoder"] |= {"hidden_size": HIDDEN, "num_attention_heads": HEADS}
    config["model"]["decoder"]["session_options"] = {"log_id": "onnxruntime-genai", "provider_options": []}
    config["search"] = {"past_present_share_buffer": not plain}
    (folder / "genai_config.json").write_text(json.dumps(config))
    if plain:
        _write_out_attention(folder / "model.onnx")
    return folder


def _write_out_attention(path: Path) -> None:
    model = onnx.load(path)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _attention(node) if node.op_type == "GroupQueryAttention" else [node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    constants = {
        "split": np.array([0, 0, HEADS, HEAD_SIZE], np.int64),
        "joined": np.array([0, 0, HIDDEN], np.int64),
        "scale": np.array(HEAD_SIZE**-0.5, np.float32),
        "never": np.array(-1e9, np.float32),
        "last_two": np.array([2, 3], np.int64),
        "queries": np.array(0, np.int64),
        "keys": np.array(1, np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.save(model, path)


def _attention(node: NodeProto) -> list[NodeProto]:
    """Inputs and outputs as the operator has them: q, k, v [batch, length, hidden]; past, present [batch, heads, length, size]."""
    query, key, value, past_key, past_value = node.input[:5]
    result, present_key, present_value = node.output
    at = f"{result}/"
    make = helper.make_node
    heads = [
        step
        for name in (query, key, value)
        for step in (
            make("Reshape", [name, "split"], [f"{at}{name}/split"]),
            make("Transpose", [f"{at}{name}/split"], [f"{at}{name}/heads"], perm=[0, 2, 1, 3]),
        )
    ]
    return [
        *heads,
        make("Concat", [past_key, f"{at}{key}/heads"], [present_key], axis=2),
        make("Concat", [past_value, f"{at}{value}/heads"], [present_value], axis=2),
        make("Transpose", [present_key], [f"{at}turned"], perm=[0, 1, 3, 2]),
        make("MatMul", [f"{at}{query}/heads", f"{at}turned"], [f"{at}products"]),
        make("Mul", [f"{at}products", "scale"], [f"{at}scores"]),
        make("Shape", [f"{at}scores"], [f"{at}shape"]),
        make("Gather", [f"{at}shape", "last_two"], [f"{at}square"]),
        make("ConstantOfShape", [f"{at}square"], [f"{at}ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        make("Gather", [f"{at}square", "keys"], [f"{at}num_keys"]),
        make("Gather", [f"{at}square", "queries"], [f"{at}num_queries"]),
        make("Sub", [f"{at}num_keys", f"{at}num_queries"], [f"{at}num_past"]),
        make("Trilu", [f"{at}ones", f"{at}num_past"], [f"{at}seen"], upper=0),
        make("Cast", [f"{at}seen"], [f"{at}is_seen"], to=onnx.TensorProto.BOOL),
        make("Where", [f"{at}is_seen", f"{at}scores", "never"], [f"{at}masked"]),
        make("Softmax", [f"{at}masked"], [f"{at}weights"], axis=-1),
        make("MatMul", [f"{at}weights", present_value], [f"{at}mixed"]),
        make("Transpose", [f"{at}mixed"], [f"{at}turned_back"], perm=[0, 2, 1, 3]),
        make("Reshape", [f"{at}turned_back", "joined"], [result]),
    ]
