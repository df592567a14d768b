"""Reads an ONNX graph's inputs, outputs and tensors, and checks that all its bytes are there. Reads protobuf; runs nothing.

Weights in other files are distrusted: their paths stay inside the model's folder and reach no further than the file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from model_registry.conversion.formats.onnx.scan import check_size
from model_registry.errors import CorruptModel
from model_registry.paths import check_file, safe_name
from model_registry.records import Precision

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1, "int8": 1, "int64": 8, "int32": 4, "bool": 1}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output. shape: None for a dimension that varies."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """operators: how many nodes of each. bits: how many block-quantized weights of each width. weight_dtypes: how many numbers.

    data_files: what the graph needs beside it, within its folder: external weights, and graphs compiled for a device.
    """

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    operators: Mapping[str, int]
    bits: Mapping[int, int]
    weight_dtypes: Mapping[str, int]
    data_files: tuple[str, ...]

    @property
    def precision(self) -> Precision:
        widths = set(self.bits)
        if "MatMulInteger" in self.operators or "DynamicQuantizeMatMul" in self.operators:
            widths.add(8)
        if widths == {4}:
            return Precision.INT4
        if widths == {8}:
            return Precision.INT8
        if widths:
            return Precision.MIXED
        return Precision.FP16 if self.weight_dtypes.get("float16", 0) > self.weight_dtypes.get("float32", 0) else Precision.FP32


def read_graph(model: Path) -> GraphFacts:
    """Raises CorruptModel: cut off, not ONNX, or external data that is missing, short, or outside the folder."""
    import onnx

    check_file(model, model.parent)
    check_size(model)
    damaged = f"{model.name} is not a whole ONNX model: it was cut off or damaged. Fetch it again."
    try:
        proto = onnx.load_model(str(model), load_external_data=False)
    except Exception as error:  # protobuf's DecodeError among others; all of them mean that the bytes are not a model
        raise CorruptModel(damaged) from error
    if not proto.graph.node or not proto.graph.output:
        raise CorruptModel(damaged)
    tensors = list(_tensors(proto))
    if any(dimension < 0 for tensor in tensors for dimension in tensor.dims):
        raise CorruptModel(damaged)
    data_files = {_check_external(tensor, model.parent) for tensor in tensors if _is_external(tensor)}
    for tensor in tensors:
        _check_embedded(tensor, damaged)
    for node in _nodes(proto.graph):
        if node.op_type == "EPContext":
            data_files |= _check_compiled(node, model.parent)
    return _facts(proto, tuple(sorted(data_files)))


def _facts(proto: ModelProto, data_files: tuple[str, ...]) -> GraphFacts:
    graph = proto.graph
    nodes = list(_nodes(graph))
    bits = Counter(
        int(attribute.i)
        for node in nodes
        for attribute in node.attribute
        if node.op_type == "MatMulNBits" and attribute.name == "bits"
    )
    weights: Counter[str] = Counter()
    for tensor in graph.initializer:
        weights[_dtype(tensor.data_type)] += prod(tensor.dims)
    return GraphFacts(
        inputs={value.name: _port(value) for value in graph.input},
        outputs={value.name: _port(value) for value in graph.output},
        operators=Counter(node.op_type for node in nodes),
        bits=bits,
        weight_dtypes=weights,
        data_files=data_files,
    )


def _check_external(tensor: TensorProto, folder: Path) -> str:
    """The data file's path within the folder."""
    entries = {str(entry.key): str(entry.value) for entry in tensor.external_data}
    location = entries.get("location", "")
    file = _within(folder, location, f"The weight {tensor.name!r}")
    offset, length = (_whole_number(entries.get(key)) for key in ("offset", "length"))
    item = _ITEM_BYTES.get(_dtype(tensor.data_type))
    expected = None if item is None else prod(tensor.dims) * item
    if offset is None or length is None or ("length" in entries and expected not in (None, length)):
        raise CorruptModel(f"The weight {tensor.name!r} has a damaged place in {location!r}. Fetch the model again.")
    end = offset + (expected or length)
    if file.stat().st_size < end:
        raise CorruptModel(
            f"The data file {location!r} has {file.stat().st_size} bytes and must have {end}: it was cut off. Fetch it again."
        )
    return location


def _check_compiled(node: NodeProto, folder: Path) -> set[str]:
    """The files of a graph compiled for a device, unless it is inside the node; OpenVINO's has its weights in a second file."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    embedded, context = attributes.get("embed_mode"), attributes.get("ep_cache_context")
    if embedded is None or embedded.i != 0 or context is None or not context.s:
        return set()
    location = context.s.decode(errors="replace")
    weights = _within(folder, location, f"The node {node.name!r}").with_suffix(".bin")
    return {location, weights.relative_to(folder).as_posix()} if weights.is_file() else {location}


def _within(folder: Path, location: str, owner: str) -> Path:
    """The file that the graph names, if it is one of the folder's."""
    try:
        path = safe_name(location, owner)
    except CorruptModel as error:
        raise CorruptModel(
            f"{owner} names the data file {location[:200]!r}, which cannot be or is outside the model's folder. "
            "Do not trust this model."
        ) from error
    if any(part.startswith(".") for part in path.parts):
        raise CorruptModel(f"{owner} names the data file {location!r}, which is hidden. Do not trust this model.")
    file = folder / path
    if not os.path.lexists(file):
        raise CorruptModel(f"The data file {location!r}, which belongs to the graph, is missing. Fetch the model again.")
    for parent in path.parents:
        if (folder / parent).is_symlink() and parent.parts:
            raise CorruptModel(f"{folder / parent} is a link to a folder. Put the folder itself there.")
    check_file(file, folder)
    return file


def _whole_number(text: str | None) -> int | None:
    """0 for an absent one, None for what is none."""
    if text is None:
        return 0
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _check_embedded(tensor: TensorProto, damaged: str) -> None:
    item = _ITEM_BYTES.get(_dtype(tensor.data_type))
    if _is_external(tensor) or item is None or not tensor.HasField("raw_data"):
        return
    if len(tensor.raw_data) != prod(tensor.dims) * item:
        raise CorruptModel(damaged)


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == tensor.EXTERNAL


def _tensors(proto: ModelProto) -> Iterator[TensorProto]:
    graphs = [proto.graph]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        graphs.extend(_subgraphs(graph))
    every_node = [*_nodes(proto.graph), *(node for function in proto.functions for node in function.node)]
    for node in every_node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    yield from graph.node
    for inner in _subgraphs(graph):
        yield from _nodes(inner)


def _subgraphs(graph: GraphProto) -> Iterator[GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def _port(value: ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    shape = tuple(int(d.dim_value) if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return Port(_dtype(tensor.elem_type), shape)


def _dtype(code: int) -> str:
    import onnx

    names = {int(value): str(name).lower() for name, value in onnx.TensorProto.DataType.items()}
    name = names.get(code, f"type {code}")
    return {"float": "float32", "double": "float64"}.get(name, name)
