"""One step of an ONNX decoder on paged KV rows: the `Runner` on ONNX Runtime. Knows no sequence and no policy.

Works on any graph whose attention is GroupQueryAttention with shared past and present: the operator takes each row's length from
the row sums of `attention_mask`, so rows of different length decode in one run. A prompt chunk on top of past KV runs alone (batch
1). Bindings are made once per range of rows and kept: rebinding sixty KV tensors would cost a third of a millisecond each step.
"""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.batching.kv import KVCache
from runtime.batching.slots import num_rows
from runtime.engines.model_folder import ModelFolder
from runtime.engines.onnx.adapters import MASK, GraphAdapters
from runtime.engines.onnx.graph import POSITIONS, DecoderGraph, UnsupportedGraph, prepare_decoder

_KV_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype(np.float32), 10: np.dtype(np.float16)}  # TensorProto.FLOAT, FLOAT16


@dataclass(frozen=True, slots=True)
class _Binding:
    """A session's binding of rows 0..n for decoding. logits: see `_bind_logits`.

    ids, positions: int64 [n, 1], filled in place; so is mask, float32 [n, 1, width], of adapters.
    """

    io: ort.IOBinding
    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    mask: NDArray[np.float32] | None
    logits: NDArray[np.float32] | None


class OnnxDecoder:
    """num_slots rows decode together at most; context: tokens of a row at most. adapters: what rows may have, if any."""

    def __init__(
        self, folder: ModelFolder, *, num_slots: int, threads: int, context: int, adapters: GraphAdapters | None = None
    ) -> None:
        """Raises UnsupportedGraph; onnxruntime's own exceptions when the model cannot be loaded."""
        decoder = self._shape = folder.decoder
        self._adapters = adapters
        graph = self._graph()
        if graph.kv_type not in _KV_DTYPES:
            raise UnsupportedGraph(f"KV of tensor type {graph.kv_type} is not served by this engine; use float32 or float16")
        self._session = _session(graph, decoder.path.parent, threads)
        self.kv = KVCache(
            num_layers=decoder.num_layers,
            rows=num_rows(num_slots),
            kv_heads=decoder.kv_heads,
            context=context,
            head_size=decoder.head_size,
            dtype=_KV_DTYPES[graph.kv_type],
        )
        layers = range(decoder.num_layers)
        self._past = [name % i for i in layers for name in (decoder.past_key, decoder.past_value)]
        self._present = [name % i for i in layers for name in (decoder.present_key, decoder.present_value)]
        self._has_positions = "position_ids" in graph.inputs
        self._last = np.zeros(1, np.int64)
        self._logits = np.zeros((num_slots, folder.vocab_size), np.float32)
        self._logits_type = _numpy_type(self._session, "logits")
        self._columns = np.arange(self.kv.context, dtype=np.int32)
        self._decode_bindings: dict[int, _Binding] = {}
        self._prefill_bindings: dict[int, ort.IOBinding] = {}

    def prefill(
        self, row: int, tokens: NDArray[np.int32], start: int, *, num_logits: int = 1, adapter: int = 0
    ) -> NDArray[np.float32]:
        io = self._prefill_bindings.get(row)
        if io is None:
            io = self._prefill_bindings[row] = self._bind_rows(row, 1)
        count = len(tokens)
        ids = tokens.astype(np.int64)[None]
        mask = np.ones((1, start + count), np.int64)
        places = np.arange(start, start + count, dtype=np.int64)[None]
        last = np.arange(count - num_logits, count, dtype=np.int64)
        logits = self._bind_logits(io, 1, num_logits)
        _bind(io, "input_ids", ids)
        _bind(io, "attention_mask", mask)
        _bind(io, POSITIONS, last)
        if self._has_positions:
            _bind(io, "position_ids", places)
        if self._adapters is not None:
            _bind(io, MASK, self._adapters.masks[adapter, None, None])
        self._session.run_with_iobinding(io)
        self.kv.wrote(row, start + count)
        every: NDArray[np.float32] = self._read_logits(io, logits)[0]
        return every

    def decode(
        self, tokens: NDArray[np.int32], lengths: NDArray[np.int32], adapters: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        count = len(tokens)
        bound = self._decode_bindings.get(count)
        if bound is None:
            bound = self._decode_bindings[count] = self._bind_decode(count)
        bound.ids[:, 0] = tokens
        bound.positions[:, 0] = lengths - 1
        if self._adapters is not None and bound.mask is not None:
            bound.mask[:, 0] = self._adapters.masks[0 if adapters is None else adapters]
        mask = (self._columns[: lengths.max()] < lengths[:, None]).astype(np.int64)
        _bind(bound.io, "attention_mask", mask)
        self._session.run_with_iobinding(bound.io)
        for row, length in enumerate(lengths.tolist()):
            self.kv.wrote(row, length)
        last: NDArray[np.float32] = self._read_logits(bound.io, bound.logits)[:, 0]
        return last

    def set_threads(self, num_threads: int) -> None:
        """A session's threads are fixed, so another one takes its place (in 0.2 s with 150 MB of weights). KV stays as it is."""
        self.close()
        del self._session  # first: its weights and the next one's need not be in memory together
        self._session = _session(self._graph(), self._shape.path.parent, num_threads)
        release_scratch()

    def close(self) -> None:
        """Bindings hold addresses of the KV arrays: they go first."""
        self._decode_bindings.clear()
        self._prefill_bindings.clear()

    def _graph(self) -> DecoderGraph:
        edit = None if self._adapters is None else self._adapters.add_to
        return prepare_decoder(self._shape.path, past_key=self._shape.past_key % 0, edit=edit)

    def _bind_decode(self, count: int) -> _Binding:
        io = self._bind_rows(0, count)
        ids, positions = np.zeros((count, 1), np.int64), np.zeros((count, 1), np.int64)
        _bind(io, "input_ids", ids)
        _bind(io, POSITIONS, self._last)
        logits = self._bind_logits(io, count, 1)
        if self._has_positions:
            _bind(io, "position_ids", positions)
        mask = None
        if self._adapters is not None:
            mask = np.zeros((count, 1, self._adapters.masks.shape[1]), np.float32)
            _bind(io, MASK, mask)
        return _Binding(io, ids, positions, mask, logits)

    def _bind_rows(self, first: int, count: int) -> ort.IOBinding:
        io = self._session.io_binding()
        for past, present, array in zip(self._past, self._present, self.kv.layers, strict=True):
            rows = array[first : first + count]
            _bind(io, past, rows)
            io.bind_output(present, "cpu", 0, rows.dtype.type, rows.shape, rows.ctypes.data)
        return io

    def _bind_logits(self, io: ort.IOBinding, rows: int, places: int) -> NDArray[np.float32] | None:
        """The array [rows, places, vocab] that a run will fill; None where the graph's logits are of another type than float32."""
        if self._logits_type != np.float32:
            io.bind_output("logits", "cpu")
            return None
        needed = rows * places
        if needed <= len(self._logits):
            array = self._logits[:needed].reshape(rows, places, -1)
        else:
            array = np.empty((rows, places, self._logits.shape[1]), np.float32)
        io.bind_output("logits", "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return array

    def _read_logits(self, io: ort.IOBinding, bound: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """What a run wrote, [rows, places, vocab]."""
        if bound is not None:
            return bound
        logits: NDArray[np.float32] = io.get_outputs()[-1].numpy().astype(np.float32)
        return logits


def release_scratch() -> None:
    """Loading leaves freed heap behind: some 30 MB of the weights' reading, up to 250 MB of a large vocabulary's. glibc keeps it
    unless called to (malloc_trim(3)); other systems do not need it."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _bind(io: ort.IOBinding, name: str, array: NDArray[np.generic]) -> None:
    """Binds an array's memory; the array must outlive the run."""
    io.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _numpy_type(session: ort.InferenceSession, output: str) -> type[np.generic]:
    kind = next(value.type for value in session.get_outputs() if value.name == output)
    return np.float16 if kind == "tensor(float16)" else np.float32


def _session(graph: DecoderGraph, folder: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")  # the arena would keep what is repacked
    if graph.weights:  # each array is dropped once the session has repacked it
        supplied = [ort.OrtValue.ortvalue_from_numpy(make()) for make in graph.weights.values()]
        options.add_external_initializers(list(graph.weights), supplied)
    ort.disable_telemetry_events()
    return ort.InferenceSession(graph.serialized, options, providers=["CPUExecutionProvider"])
