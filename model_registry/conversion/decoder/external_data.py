"""The file of weights beside a graph, written as a stream, one piece in memory at a time. Knows not what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from onnx import TensorProto

ALIGNMENT = 4096  # so that a runtime can map large tensors instead of reading them


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
        """The same bytes under another name and shape; they lie in the file once."""
        from onnx import TensorProto

        viewed = TensorProto()
        viewed.CopyFrom(tensor)
        viewed.name, viewed.dims[:] = name, shape
        return viewed

    def __enter__(self) -> ExternalData:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
