"""GGUF files of the llama family and gemma3: the importer, and a file as a `TensorSource`. Without PyTorch.

Q8_0 and Q4_0 are the form that our graphs store, in blocks of 32 with zero at 128 and 8, so they are repacked bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import Architecture
from model_registry.conversion.formats.gguf.architecture import read_architecture
from model_registry.conversion.formats.gguf.reader import MAGIC, GgufFile, StoredTensor, open_gguf
from model_registry.conversion.formats.gguf.texts import text_facts, write_texts
from model_registry.conversion.formats.gguf.tokenizer import read_vocabulary
from model_registry.conversion.importer import Imported, ImportOptions
from model_registry.conversion.quantizers.recipe import BLOCK
from model_registry.conversion.quantizers.rtn import Blocks, pack_pairs
from model_registry.conversion.source import ALL_ROWS, EMBEDDING, Floats, Rows, TensorInfo, TextFacts, check_finite, check_tensors
from model_registry.conversion.writing import write_model
from model_registry.disk import storage_errors
from model_registry.errors import UnsupportedModel
from model_registry.progress import Progress
from model_registry.records import Precision

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

_PRECISIONS = (Precision.AUTO, Precision.INT8, Precision.INT4, Precision.FP16, Precision.FP32)
_EXACT_BITS = {"Q8_0": 8, "Q4_0": 4}


class GgufImporter:
    """`auto` keeps Q8_0 and Q4_0 exactly and takes int8 for every other type.

    int8 rounds what is not already so: with smoothing, in blocks of 64 where rows divide by it, else of 32.
    """

    name = "gguf"

    def can_import(self, path: Path) -> bool:
        """Any file that begins with GGUF's magic, or is named so (then `run` says what is wrong with it)."""
        if not path.is_file():
            return False
        if path.suffix.lower() == ".gguf":
            return True
        try:
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except OSError:
            return False

    def run(self, path: Path, destination: Path, options: ImportOptions, progress: Progress) -> Imported:
        """Everything that can be refused is refused before the first weight is written."""
        if options.precision not in _PRECISIONS:
            raise UnsupportedModel(f"A GGUF file cannot be imported as {options.precision}; possible are {', '.join(_PRECISIONS)}.")
        progress.stage("reading the GGUF file")
        source = open_source(path)
        with storage_errors(destination, 2 * path.stat().st_size, f"importing {path.name}"):
            return write_model(source, destination, options, progress)


@dataclass(frozen=True, slots=True)
class GgufSource:
    """file: checked. Made by `open_source`."""

    file: GgufFile
    architecture: Architecture
    tensors: Mapping[str, TensorInfo]

    def read(self, name: str) -> Floats:
        return self.read_rows(name, ALL_ROWS).reshape(self.tensors[name].shape)

    def read_rows(self, name: str, rows: Rows) -> Floats:
        return _dequantize(self.file.raw(name)[rows], self.file.tensors[name].type, name)

    def read_blocks(self, name: str, rows: Rows, bits: int) -> Blocks:
        raw = self.file.raw(name)[rows]
        if self.tensors[name].exact_bits == 8:
            return _repack_q8_0(raw, name)
        blocks = _repack_q4_0(raw, name)
        return blocks if bits == 4 else _widen(blocks)

    def write_texts(self, folder: Path) -> TextFacts:
        num_rows = self.tensors[EMBEDDING].num_rows
        vocabulary = read_vocabulary(self.file.metadata, num_rows)
        write_texts(self.file.metadata, self.architecture, vocabulary, folder)
        return text_facts(self.file.metadata, self.architecture, vocabulary, num_rows)


def open_source(path: Path) -> GgufSource:
    """Everything but the vocabulary is checked. Raises CorruptModel, UnsupportedModel."""
    file = open_gguf(path)
    architecture = read_architecture(file.metadata)
    tensors = {name: tensor_info(stored) for name, stored in file.tensors.items()}
    check_tensors(tensors, architecture)
    return GgufSource(file, architecture, tensors)


def tensor_info(stored: StoredTensor) -> TensorInfo:
    return TensorInfo(stored.shape, stored.type.name, _EXACT_BITS.get(stored.type.name))


def _dequantize(raw: NDArray[np.uint8], kind: GGMLQuantizationType, name: str) -> NDArray[np.float32]:
    """Rows of stored bytes as float32 [rows, columns]. Raises CorruptModel for values that are not finite."""
    from gguf.quants import dequantize as gguf_dequantize

    with np.errstate(all="ignore"):
        try:
            values = gguf_dequantize(np.ascontiguousarray(raw), kind).astype(np.float32, copy=False)
        except NotImplementedError:
            raise UnsupportedModel(
                f"Tensor {name} is stored as {kind.name}, which cannot be read. Use a file in Q8_0, Q4_K_M or F16."
            ) from None
    return check_finite(np.asarray(values, np.float32), name)


def _halves(raw: NDArray[np.uint8], block_bytes: int, name: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(quant bytes [rows, blocks, block_bytes - 2], scales [rows, blocks]); each block begins with a float16 scale."""
    blocks = raw.reshape(raw.shape[0], -1, block_bytes)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)[:, :, 0]
    return blocks[:, :, 2:], check_finite(scales.astype(np.float32), name)


def _repack_q8_0(raw: NDArray[np.uint8], name: str) -> Blocks:
    signed, scales = _halves(raw, 34, name)
    return Blocks(signed ^ np.uint8(0x80), scales)  # two's complement to offset 128


def _repack_q4_0(raw: NDArray[np.uint8], name: str) -> Blocks:
    """GGUF pairs value i with value i + 16 in a byte; ours pairs 2i with 2i + 1."""
    packed, scales = _halves(raw, 18, name)
    integers = np.concatenate([packed & 0x0F, packed >> 4], axis=-1)
    return Blocks(pack_pairs(integers), scales)


def _widen(blocks: Blocks) -> Blocks:
    """4-bit blocks as 8-bit blocks of the same values."""
    pairs = np.stack([blocks.integers & 0x0F, blocks.integers >> 4], axis=-1)
    return Blocks(pairs.reshape(*blocks.scales.shape, BLOCK) + np.uint8(120), blocks.scales)
