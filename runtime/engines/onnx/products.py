"""The matrix products of a decoder's layers: which there are, what they multiply, and the blocks of weights that they read.

Knows no adapter and no session. A product of 8 bits can be widened: further columns of its matrix, in blocks after its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_PRODUCT = re.compile(r"/model/layers\.(\d+)/(?:attn|mlp)/(\w+)/MatMul\w*")
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}
_FLOAT_BITS = 32
_MIDDLE = 128  # the zero of 8 bits where a product has no zeros of its own


@dataclass(frozen=True, slots=True)
class Product:
    """node: a MatMul or a MatMulNBits. modules: whose rows it stacks, with their numbers of rows.

    columns: of its input. bits: 32 for floats. block: columns with one scale, 0 for floats.
    """

    node: onnx.NodeProto
    layer: int
    modules: tuple[tuple[str, int], ...]
    columns: int
    bits: int
    block: int

    @property
    def rows(self) -> int:
        return sum(size for _, size in self.modules)

    @property
    def can_widen(self) -> bool:
        return self.bits == 8


@dataclass(frozen=True, slots=True)
class ByteBlocks:
    """A matrix of 8 bits around 128: integers uint8 [rows, blocks, columns of a block], scales float32 [rows, blocks]."""

    integers: NDArray[np.uint8]
    scales: NDArray[np.float32]


def layer_products(graph: onnx.GraphProto, kv_size: int) -> Iterator[Product]:
    """The products in the graph's order. kv_size: rows of k, and of v, where a product stacks them behind q."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]][::-1]
    for node in graph.node:
        match = _PRODUCT.fullmatch(node.name)
        if match is None or node.op_type not in ("MatMul", "MatMulNBits"):
            continue
        bits, block = _FLOAT_BITS, 0
        if node.op_type == "MatMulNBits":
            numbers = {attribute.name: attribute.i for attribute in node.attribute}
            columns, rows, bits, block = (numbers[name] for name in ("K", "N", "bits", "block_size"))
        else:
            columns, rows = shapes[node.input[1]]
        modules: tuple[tuple[str, int], ...] = ((match[2], rows),)
        if match[2] in _FUSED:
            modules = tuple(zip(_FUSED[match[2]], (rows - 2 * kv_size, kv_size, kv_size), strict=True))
        yield Product(node, int(match[1]), modules, columns, bits, block)


def to_byte_blocks(weights: NDArray[np.float32], block: int) -> ByteBlocks:
    """[rows, columns], rounded; columns are whole blocks."""
    rows, columns = weights.shape
    blocks = weights.reshape(rows, columns // block, block)
    scales = np.abs(blocks).max(axis=2) / np.float32(127)
    integers = np.rint(blocks / np.where(scales == 0, 1, scales)[..., None]) + _MIDDLE
    return ByteBlocks(integers.astype(np.uint8), scales.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Widened:
    """A product's matrix with further columns. tensors: its own, which it no longer reads, by the place among the node's inputs.

    Read again by each call of `array`, one at a time: both matrices are as large as the model.
    """

    product: Product
    tensors: Mapping[int, onnx.TensorProto]
    more: ByteBlocks
    folder: Path

    def array(self, place: int) -> NDArray[Any]:
        """What the node is to read at this place: integers [rows, blocks, block], scales or zeros [rows, blocks]."""
        stored, rows = read_tensor(self.tensors[place], self.folder), self.product.rows
        if place == 1:
            return np.concatenate([stored.reshape(rows, -1, self.product.block), self.more.integers], axis=1)
        more = self.more.scales if place == 2 else np.full(self.more.scales.shape, _MIDDLE, np.uint8)
        return np.concatenate([stored.reshape(rows, -1), more], axis=1)


def widen(product: Product, more: ByteBlocks, graph: onnx.GraphProto, folder: Path) -> Widened:
    """Widens the node's input attributes; the caller names the new tensors and the new input."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    own = {place: tensors[name] for place, name in enumerate(product.node.input[:4]) if place and name}
    for attribute in product.node.attribute:
        if attribute.name == "K":
            attribute.i = product.columns + more.scales.shape[1] * product.block
    return Widened(product, own, more, folder)


def read_tensor(tensor: onnx.TensorProto, folder: Path) -> NDArray[Any]:
    """An initializer's values, also if they are in a file beside the model."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    place = {entry.key: entry.value for entry in tensor.external_data}
    shape, offset = tuple(tensor.dims), int(place.get("offset", 0))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.fromfile(folder / place["location"], dtype, count=int(np.prod(shape)), offset=offset).reshape(shape)
