"""Edits to a decoder's graph at load: what serving needs and exporters leave out, and branches beside its products.

The head of a language model is its widest matrix, and a prompt needs it for one position only. So the hidden states are gathered
at `POSITIONS` before the head: an added input, int64 [k], of positions within the step's tokens. Logits become [batch, k, vocab].
Knows no session and no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.onnx.products import Product, Widened, to_byte_blocks

Floats = NDArray[np.float32]
Weights = dict[str, Callable[[], NDArray[Any]]]  # by the initializer's name; made when the session is
_BLOCKS = (64, 32, 16)  # of what is rounded; the wider, the faster
_FEW_ROWS = 128  # up to here a float32 product is faster than one of 8 bits
_LARGE_BYTES = 4096
_MICROSOFT = "com.microsoft"


class SideBranches:
    """Nodes beside a decoder's products, in order, and `weights` that are supplied when a session is made.

    Weights are not put into the model: a session keeps what a model holds beside what its kernels repacked, so that they would be
    in memory twice. What is supplied from outside is dropped once it is repacked. mask: the graph's input that the branches are
    masked by, [batch, 1, at least as wide as the widest].
    """

    def __init__(self, graph: onnx.GraphProto, mask: str) -> None:
        self._graph = graph
        self._mask = mask
        self._first: list[onnx.NodeProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._after: list[onnx.NodeProto] = []
        self._masks: dict[tuple[int, ...], str] = {}
        self.weights: Weights = {}

    def around(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The node with what was written since the last call, in order."""
        nodes = [*self._nodes, node, *self._after]
        self._nodes, self._after = [], []
        return nodes

    def first(self) -> list[onnx.NodeProto]:
        """What is computed once in a step, before everything else."""
        return self._first

    def product(self, x: str, weights: Floats, path: str, like: Product) -> str:
        """x [..., columns] times weights [rows, columns], rounded to 8 bits where `like` is rounded, if that is faster."""
        rows, columns = weights.shape
        output = f"{path}/output"
        if like.block == 0 or rows <= _FEW_ROWS:
            self._add(f"{path}/weight", np.ascontiguousarray(weights.T))
            self._nodes.append(helper.make_node("MatMul", [x, f"{path}/weight"], [output], name=path))
            return output
        block = next(size for size in _BLOCKS if columns % size == 0)
        rounded = to_byte_blocks(weights, block)
        self._add(f"{path}/integers", rounded.integers)
        self._add(f"{path}/scales", rounded.scales)
        level = next((each.i for each in like.node.attribute if each.name == "accuracy_level"), 0)
        self._nodes.append(
            helper.make_node(
                "MatMulNBits",
                [x, f"{path}/integers", f"{path}/scales"],
                [output],
                name=path,
                domain=_MICROSOFT,
                K=columns,
                N=rows,
                bits=8,
                block_size=block,
                accuracy_level=level,
            )
        )
        return output

    def masked(self, x: str, widths: Sequence[int], path: str) -> list[str]:
        """x [..., sum of widths] times the mask, whose beginning is laid over each of the widths; taken apart by them."""
        self._nodes.append(helper.make_node("Mul", [x, self._mask_of(tuple(widths))], [f"{path}/masked"], name=f"{path}/Mul"))
        if len(widths) == 1:
            return [f"{path}/masked"]
        self._add(f"{path}/widths", np.array(widths, np.int64))
        parts = [f"{path}/masked_{number}" for number in range(len(widths))]
        self._nodes.append(helper.make_node("Split", [f"{path}/masked", f"{path}/widths"], parts, name=f"{path}/Split", axis=-1))
        return parts

    def widen(self, widened: Widened, masked: str, path: str) -> None:
        """Extends the product: it reads its input and `masked` beside it."""
        node, joined = widened.product.node, f"{path}/joined"
        self._nodes.append(helper.make_node("Concat", [node.input[0], masked], [joined], name=f"{path}/Concat", axis=-1))
        node.input[0] = joined
        for place, tensor in widened.tensors.items():
            blocks = widened.more.integers.shape if place == 1 else widened.more.scales.shape
            own = widened.product.columns // widened.product.block
            shape = (blocks[0], own + blocks[1], *blocks[2:])
            node.input[place] = f"{path}/wide_{place}"
            self._supply(node.input[place], tensor.data_type, shape, partial(widened.array, place))

    def add_to_output(self, node: onnx.NodeProto, added: str, path: str) -> None:
        output = node.output[0]
        node.output[0] = f"{path}/without"
        self._after.append(helper.make_node("Add", [f"{path}/without", added], [output], name=f"{path}/Add"))

    def _mask_of(self, widths: tuple[int, ...]) -> str:
        if widths in self._masks:
            return self._masks[widths]
        name = self._masks[widths] = f"{self._mask}/{'_'.join(map(str, widths))}"
        if len(widths) > 1:
            parts = [self._mask_of((width,)) for width in widths]
            self._first.append(helper.make_node("Concat", parts, [name], name=name, axis=-1))
            return name
        bounds = [f"{name}/{bound}" for bound in ("from", "to", "axis")]
        for bound, value in zip(bounds, (0, widths[0], -1), strict=True):
            self._add(bound, np.array([value], np.int64))
        self._first.append(helper.make_node("Slice", [self._mask, *bounds], [name], name=name))
        return name

    def _add(self, name: str, values: NDArray[Any]) -> None:
        if values.nbytes < _LARGE_BYTES:
            self._graph.initializer.append(numpy_helper.from_array(values, name))
        else:
            self._supply(name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape, lambda: values)

    def _supply(self, name: str, data_type: int, shape: Sequence[int], make: Callable[[], NDArray[Any]]) -> None:
        tensor = TensorProto(name=name, data_type=data_type, dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="supplied")  # never opened: the session is given the values
        self._graph.initializer.append(tensor)
        self.weights[name] = make


POSITIONS = "logits_positions"
_HEADS = {"MatMul", "MatMulNBits", "Gemm", "FusedMatMul"}
_AFTER_HEAD = {"Cast", "Mul", "Div", "Tanh", "Add", "Identity"}


class UnsupportedGraph(ValueError):
    """The graph is sound, but continuous batching cannot run it; the message has the reason."""


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
