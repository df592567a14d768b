"""Edits to a decoder's graph at load: what serving needs and exporters leave out. Knows no session and no rows.

The head of a language model is its widest matrix; a prompt needs it for one position only. So the hidden states are gathered at
`POSITIONS` before the head: an added input, int64 [k], of positions within the step's tokens. Logits become [batch, k, vocab].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from runtime.engines.onnx_side_branch import Weights

POSITIONS = "logits_positions"
_HEADS = {"MatMul", "MatMulNBits", "Gemm", "FusedMatMul"}
_AFTER_HEAD = {"Cast", "Mul", "Div", "Tanh", "Add", "Identity"}


class UnsupportedGraph(ValueError):
    """The graph is sound, but continuous batching cannot run it; the message says why."""


@dataclass(frozen=True, slots=True)
class DecoderGraph:
    """serialized: the model without its external data. inputs: the graph's input names. kv_type: TensorProto type of past keys.

    weights: what the session is to be given besides, by the initializer's name.
    """

    serialized: bytes
    inputs: frozenset[str]
    kv_type: int
    weights: Weights


def prepare_decoder(
    path: Path, *, past_key: str, logits: str = "logits", edit: Callable[[onnx.ModelProto], Weights] | None = None
) -> DecoderGraph:
    """Reads model.onnx, checks that it can batch, and gathers before the head. edit: one more change, which returns the weights
    that it adds. Raises UnsupportedGraph."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own exception type differs between its implementations
        raise UnsupportedGraph(f"{path.name} cannot be read as an ONNX model: {error}") from error
    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    if not any(node.op_type == "GroupQueryAttention" for node in graph.node):
        raise UnsupportedGraph(f"{path.name} has no GroupQueryAttention: its rows cannot have different lengths")
    if past_key not in inputs:
        raise UnsupportedGraph(f"{path.name} has no input {past_key!r}: its KV cache cannot be shared between past and present")
    weights = {} if edit is None else edit(model)
    head = _head(graph, logits)
    gathered = f"{head.input[0]}/gathered"
    graph.input.append(helper.make_tensor_value_info(POSITIONS, TensorProto.INT64, ["num_positions"]))
    gather = helper.make_node("Gather", [head.input[0], POSITIONS], [gathered], name="gather_positions", axis=1)
    head.input[0] = gathered
    graph.node.insert(list(graph.node).index(head), gather)
    for output in graph.output:
        if output.name == logits:
            output.type.tensor_type.shape.dim[1].dim_param = "num_positions"
    return DecoderGraph(
        serialized=model.SerializeToString(),
        inputs=frozenset(value.name for value in graph.input),
        kv_type=inputs[past_key].type.tensor_type.elem_type,
        weights=weights,
    )


def _head(graph: onnx.GraphProto, logits: str) -> onnx.NodeProto:
    """The matrix product that makes the logits, looking back through element-wise nodes (casts, soft caps)."""
    producers = {output: node for node in graph.node for output in node.output}
    node = producers.get(logits)
    while node is not None and node.op_type in _AFTER_HEAD:
        node = next((producers[name] for name in node.input if name in producers), None)
    if node is None or node.op_type not in _HEADS:
        found = "nothing" if node is None else node.op_type
        raise UnsupportedGraph(f"the graph's logits come from {found}, not from a matrix product")
    found_head: onnx.NodeProto = node
    return found_head
