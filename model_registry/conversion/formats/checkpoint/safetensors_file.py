"""A safetensors file, by the library of that name: its tensors as float32, whole or by rows, read where they lie. Knows no model.

The library checks that tensors lie end to end, fill the file and have the bytes that their shapes call for; what it finds is a
CorruptModel here. Format: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from model_registry.conversion.source import Floats, Rows
from model_registry.errors import CorruptModel

READABLE = ("F32", "F16", "BF16")  # the types that `read` widens
MAX_HEADER_BYTES = 16 << 20  # the format allows 100 MB, which would take a gigabyte to read; the largest models need one


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """dtype: in the format's word, e.g. `BF16`. The file stays mapped while this is in use."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Any

    def read(self) -> Floats:
        """The whole tensor, in its own shape; of a type in READABLE."""
        return np.asarray(self.file.get_tensor(self.name)).astype(np.float32, copy=False)

    def read_rows(self, rows: Rows) -> Floats:
        """[rows, columns] of a matrix of a type in READABLE; only these are copied out of the file."""
        view = self.file.get_slice(self.name)
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            found = np.asarray(view[start:stop])
        else:
            found = np.concatenate([view[row : row + 1] for row in rows.tolist()])
        return found.astype(np.float32, copy=False)


def open_safetensors(path: Path) -> Mapping[str, StoredTensor]:
    """By name, in the order of the file. Raises CorruptModel, OSError."""
    import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 by it)
    from safetensors import SafetensorError, safe_open

    with path.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise CorruptModel(f"The header of {path.name} has {size / 1e6:.0f} MB, more than any model needs. Fetch it again.")
    try:
        file: Any = safe_open(path, framework="numpy")
        return {name: _stored(file, name) for name in file.offset_keys()}
    except SafetensorError as error:
        raise CorruptModel(f"{path.name} is no safetensors file, or is damaged or cut: {error}. Fetch it again.") from error


def count_parameters(folder: Path) -> int:
    """Of all safetensors files in the folder, by their headers. Raises CorruptModel."""
    return sum(prod(stored.shape) for path in folder.glob("*.safetensors") for stored in open_safetensors(path).values())


def _stored(file: Any, name: str) -> StoredTensor:
    view = file.get_slice(name)
    return StoredTensor(name, view.get_dtype(), tuple(view.get_shape()), file)
