"""An ONNX graph under construction: nodes, constants, matrix products at any precision, and the file of weights beside it.

Owns the operators' wire form. Weights are written as a stream, one piece in memory at a time. Knows nothing of decoders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from model_registry.conversion.decoder.matrix import Matrix
from model_registry.conversion.quantizers.recipe import FLOAT_BITS, HALF_BITS
from model_registry.conversion.quantizers.rtn import pack_pairs

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto, ValueInfoProto

MICROSOFT = "com.microsoft"
OPSET, MICROSOFT_OPSET, IR_VERSION = 21, 1, 10  # what onnxruntime 1.23 reads
_FLOAT = 1  # TensorProto.FLOAT
ALIGNMENT = 4096  # so that a runtime can map large tensors instead of reading them
INT8_ACTIVATIONS = 4  # MatMulNBits accuracy_level: activations are rounded to int8 per block


class ExternalData:
    """Use as a context manager; tensors refer to the file by its name, so keep it in the graph's folder."""

    def __init__(self, path: Path) -> None:
        self._location = path.name
        self._file = path.open("wb")
        self._offset = 0

    def write(self, name: str, dtype: DTypeLike, shape: tuple[int, ...], pieces: Iterable[NDArray[np.generic]]) -> TensorProto:
        """Append the pieces, in order, as one tensor. Their bytes must add up to `shape`."""
        from onnx import TensorProto, helper

        kind = np.dtype(dtype)
        expected = prod(shape) * kind.itemsize
        padding = -self._offset % ALIGNMENT if expected >= ALIGNMENT else -self._offset % kind.itemsize
        self._file.write(b"\0" * padding)
        start = self._offset + padding
        written = 0
        for piece in pieces:
            contiguous = np.ascontiguousarray(piece, kind)
            self._file.write(contiguous.data)
            written += contiguous.nbytes
        if written != expected:
            raise AssertionError(f"{name}: wrote {written} bytes for shape {shape}, which takes {expected}")
        self._offset = start + written
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(kind), dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._location), ("offset", str(start)), ("length", str(written))):
            tensor.external_data.add(key=key, value=value)
        return tensor

    def view(self, tensor: TensorProto, name: str, shape: tuple[int, ...]) -> TensorProto:
        """The same bytes under another name and shape; they are stored once."""
        from onnx import TensorProto

        viewed = TensorProto()
        viewed.CopyFrom(tensor)
        viewed.name, viewed.dims[:] = name, shape
        return viewed

    def __enter__(self) -> ExternalData:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()


class Graph:
    """Values are named by strings; every method that computes returns its output's name."""

    def __init__(self, data: ExternalData) -> None:
        self._data = data
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Returns the first output."""
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs[0]

    def constant(self, name: str, values: int | list[int]) -> str:
        """A small int64 tensor (a scalar for an int), kept in the graph itself so that shapes can be inferred."""
        from onnx import numpy_helper

        return self._add(numpy_helper.from_array(np.array(values, np.int64), name))

    def weight(self, name: str, values: NDArray[np.float32]) -> str:
        """A whole float32 tensor in external data."""
        return self.streamed(name, values.shape, [values])

    def streamed(self, name: str, shape: tuple[int, ...], pieces: Any) -> str:
        """A float32 tensor in external data from an iterable of its pieces."""
        return self._add(self._data.write(name, np.float32, shape, pieces))

    def linear(self, x: str, matrix: Matrix, path: str) -> str:
        """x [..., columns] times the matrix's rows, plus its bias. path: e.g. `/model/layers.0/mlp/up_proj`."""
        weight = self.store(matrix, path)
        return self.add_bias(self.product(x, matrix, weight, path), matrix, path)

    def store(self, matrix: Matrix, path: str) -> str:
        """Write the matrix: floats, or `.q`, `.scales` and perhaps `.zeros`. Returns what `product` and `gather` take."""
        name = path.strip("/").replace("/", ".") + ".weight"
        if matrix.bits == HALF_BITS:
            return self._add(self._data.write(name, np.float16, (matrix.num_rows, matrix.columns), matrix.halves()))
        if matrix.bits == FLOAT_BITS:
            return self.streamed(name, (matrix.num_rows, matrix.columns), matrix.floats())
        scales: list[NDArray[np.float32]] = []
        zeros: list[NDArray[np.uint8]] = []

        def integers() -> Any:
            for blocks in matrix.blocks():
                scales.append(blocks.scales)
                if blocks.zeros is not None:
                    zeros.append(blocks.zeros if matrix.bits == 8 else _packed_zeros(blocks.zeros))
                yield blocks.integers

        num_blocks = matrix.width // matrix.block
        shape = (matrix.num_rows, num_blocks, matrix.block * matrix.bits // 8)
        self._add(self._data.write(f"{name}.q", np.uint8, shape, integers()))
        self.streamed(f"{name}.scales", (matrix.num_rows, num_blocks), scales)
        if matrix.has_zeros:
            shape_of_zeros = (matrix.num_rows, (num_blocks * matrix.bits + 7) // 8)
            self._add(self._data.write(f"{name}.zeros", np.uint8, shape_of_zeros, zeros))
        return name

    def product(self, x: str, matrix: Matrix, weight: str, path: str, output: str | None = None) -> str:
        """x times the stored matrix's rows, without bias."""
        output = output or f"{path}/output"
        x = self._isolated(x, matrix, path)
        if matrix.bits in (FLOAT_BITS, HALF_BITS):  # constant folding does the rest when the model loads
            weight = self._widened(weight, matrix, path)
            turned = self.node("Transpose", [weight], [f"{path}/turned"], f"{path}/Transpose", perm=[1, 0])
            return self.node("MatMul", [x, turned], [output], f"{path}/MatMul")
        return self.node(
            "MatMulNBits",
            [x, *_stored(matrix, weight)],
            [output],
            f"{path}/MatMulNBits",
            MICROSOFT,
            K=matrix.width,
            N=matrix.num_rows,
            bits=matrix.bits,
            block_size=matrix.block,
            accuracy_level=INT8_ACTIVATIONS,
        )

    def _widened(self, weight: str, matrix: Matrix, path: str) -> str:
        """Float16 weights as float32, which is what the CPU multiplies."""
        if matrix.bits == FLOAT_BITS:
            return weight
        return self.node("Cast", [weight], [f"{path}/whole"], f"{path}/Cast", to=_FLOAT)

    def _isolated(self, x: str, matrix: Matrix, path: str) -> str:
        """x with its outliers moved from their places to the first ones of the blocks after the others."""
        if not matrix.outliers:
            return x
        places = np.zeros(matrix.width, np.int64)
        places[: matrix.columns] = np.arange(matrix.columns)
        shares = np.zeros(matrix.width, np.float32)
        shares[: matrix.columns] = 1
        shares[list(matrix.outliers)] = 0
        places[matrix.columns :: matrix.block] = matrix.outliers
        shares[matrix.columns :: matrix.block] = 1
        index = self.constant(f"{path}/places", places.tolist())
        spread = self.node("Gather", [x, index], [f"{path}/spread"], f"{path}/Gather", axis=-1)
        weight = self.weight(f"{path.strip('/').replace('/', '.')}.shares", shares)
        return self.node("Mul", [spread, weight], [f"{path}/isolated"], f"{path}/Mul")

    def add_bias(self, x: str, matrix: Matrix, path: str) -> str:
        bias = matrix.bias()
        if bias is None:
            return x
        name = self.weight(path.strip("/").replace("/", ".") + ".bias", bias)
        return self.node("Add", [x, name], [f"{path}/biased"], f"{path}/Add")

    def gather(self, ids: str, matrix: Matrix, weight: str, path: str) -> str:
        """Rows of the stored matrix by id, as floats. Only the requested rows are read from the file."""
        output = f"{path}/output"
        if matrix.bits == HALF_BITS:
            rows = self.node("Gather", [weight, ids], [f"{path}/half"], f"{path}/Gather")
            return self.node("Cast", [rows], [output], f"{path}/Cast", to=_FLOAT)
        if matrix.bits == FLOAT_BITS:
            return self.node("Gather", [weight, ids], [output], f"{path}/Gather")
        shape = (matrix.num_rows, matrix.width * matrix.bits // 8)
        rows = self._add(self._data.view(self._initializers[f"{weight}.q"], f"{weight}.rows", shape))
        wide = f"{path}/wide" if matrix.outliers else output
        self.node(
            "GatherBlockQuantized",
            [rows, ids, *_stored(matrix, weight)[1:]],
            [wide],
            f"{path}/GatherBlockQuantized",
            MICROSOFT,
            bits=matrix.bits,
            block_size=matrix.block,
            gather_axis=0,
            quantize_axis=1,
        )
        if not matrix.outliers:
            return output
        ends = [self.constant(f"{path}/{name}", [value]) for name, value in (("from", 0), ("to", matrix.columns), ("axis", -1))]
        return self.node("Slice", [wide, *ends], [output], f"{path}/Slice")

    def save(self, path: Path, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> None:
        import onnx
        from onnx import helper

        graph = helper.make_graph(self._nodes, "main", inputs, outputs, initializer=list(self._initializers.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, MICROSOFT_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="slmops")
        onnx.save(model, path)

    def _add(self, tensor: TensorProto) -> str:
        self._initializers[tensor.name] = tensor
        return str(tensor.name)


def _packed_zeros(zeros: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two to a byte; a row begins with a byte of its own."""
    return pack_pairs(np.pad(zeros, ((0, 0), (0, zeros.shape[1] % 2))))


def _stored(matrix: Matrix, weight: str) -> list[str]:
    return [f"{weight}.q", f"{weight}.scales", *([f"{weight}.zeros"] if matrix.has_zeros else [])]
