"""Perplexity over the text that slmops ships: how surprised a model is by it, exp of the mean loss per predicted token.

Owns the text's division into windows, the choice of how much to read, and the measurement of an importable folder with
ONNX Runtime. Knows nothing of any source format; a format that can compute its own logits hands them to `perplexity`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_registry.errors import CorruptModel
from model_registry.telemetry import turn_off_telemetry

TEXT = Path(__file__).parents[2] / "data" / "perplexity.txt"
WINDOW = 512  # tokens, each window read from an empty context
MAX_TOKENS = 2048
MIN_TOKENS = 256
_ROWS_AT_A_TIME = 64
PRODUCT_BUDGET = 1_000_000_000_000  # multiplications that a measurement may take: some ten seconds on two cores

Ids = NDArray[np.int64]
Counts = Sequence[NDArray[np.bool_]] | None  # of each window's tokens, whether they count when predicted; None: all do


@dataclass(frozen=True, slots=True)
class Texts:
    """windows: token ids, each read from an empty context. counts: as `perplexity` has it."""

    windows: Sequence[Ids]
    counts: Counts = None

    def predicting(self, logits: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """The rows of each window's logits, [tokens, vocabulary], that predict a token that counts."""
        for number, rows in enumerate(logits):
            yield rows if self.counts is None else rows[:-1][self.counts[number][1:]]


def plan_num_tokens(num_parameters: int, largest_bytes: int, available_bytes: int, most: int = MAX_TOKENS) -> int:
    """How many tokens to measure: fewer for a larger model, 0 (do not measure) when it would take minutes or not fit.

    largest_bytes: of what must be in memory at once, as float32. most: for a small model.
    """
    if largest_bytes * 2 > available_bytes:
        return 0
    affordable = PRODUCT_BUDGET // max(1, num_parameters)
    return 0 if affordable < MIN_TOKENS else min(most, affordable)


def text_windows(folder: Path, text: Path, num_tokens: int, context_length: int) -> tuple[Ids, ...]:
    """The text in the folder's tokens, in windows that begin with the tokenizer's first token where it adds one."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False).ids[:num_tokens]
    first = tokenizer.encode("", add_special_tokens=True).ids[:1]
    step = min(WINDOW, context_length) - len(first)
    pieces = [ids[start : start + step] for start in range(0, len(ids), max(1, step))]
    return tuple(np.array([*first, *piece], np.int64) for piece in pieces if len(first) + len(piece) > 1)


def num_predicted(windows: Sequence[Ids], counts: Counts = None) -> int:
    """Every token of a window but its first is predicted, and counts by default."""
    if counts is None:
        return sum(len(window) - 1 for window in windows)
    return sum(int(each[1:].sum()) for each in counts)


def perplexity(logits: Iterable[NDArray[np.float32]], windows: Sequence[Ids], counts: Counts = None) -> float:
    """logits: pieces [tokens, vocabulary], windows in order, no piece crossing from one window to the next."""
    total, window, position = 0.0, 0, 0
    for piece in logits:
        ids = windows[window]
        predicted = slice(position + 1, position + 1 + len(piece))
        targets = ids[predicted]
        rows = piece[: len(targets)]
        if counts is not None:
            counted = counts[window][predicted]
            rows, targets = rows[counted], targets[counted]
        total += float(_losses(rows, targets).sum())
        position += len(piece)
        if position >= len(ids):
            window, position = window + 1, 0
    with np.errstate(over="ignore"):
        return float(np.exp(total / max(1, num_predicted(windows, counts))))


def folder_perplexity(folder: Path, windows: Sequence[Ids], threads: int = 0, counts: Counts = None) -> float:
    """The perplexity of the model in an onnxruntime-genai folder, on the CPU. threads: 0 means the runtime's default.

    Raises CorruptModel when the folder's model cannot run.
    """
    return perplexity(folder_logits(folder, windows, threads), windows, counts)


def divergence(truth: Iterable[NDArray[np.float32]], logits: Iterable[NDArray[np.float32]]) -> float:
    """How far what `logits` predict is from what `truth` does: the mean Kullback-Leibler divergence per token, in nats."""
    total, count = 0.0, 0
    for right, computed in zip(truth, logits, strict=True):
        for start in range(0, len(right), _ROWS_AT_A_TIME):
            rows = slice(start, start + _ROWS_AT_A_TIME)
            one, two = _log_softmax(right[rows]), _log_softmax(computed[rows])
            total += float((np.exp(one) * (one - two)).sum(dtype=np.float64))
        count += len(right)
    return total / max(1, count)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normed: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normed


def _losses(logits: NDArray[np.float32], targets: Ids) -> NDArray[np.float64]:
    """Some rows at a time: with a vocabulary of 262,144, a window's logits are half a gigabyte, and so is each copy."""
    losses = np.empty(len(targets), np.float64)
    for start in range(0, len(targets), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        block, wanted = logits[rows], targets[rows]
        peak = block.max(axis=-1, keepdims=True)
        total = np.log(np.exp(block - peak).sum(axis=-1, dtype=np.float64)) + peak[:, 0]
        losses[rows] = total - block[np.arange(len(wanted)), wanted]
    return losses


def folder_logits(folder: Path, windows: Sequence[Ids], threads: int = 0) -> Iterator[NDArray[np.float32]]:
    """The logits of each window, [tokens, vocabulary], on the CPU. Raises CorruptModel."""
    turn_off_telemetry()
    import onnxruntime

    decoder = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = False  # which would keep the largest logits twice
    try:
        path = folder / decoder["filename"]
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for window in windows:
            (logits,) = session.run([decoder["outputs"]["logits"]], _feeds(session, decoder, window))
            yield logits[0].astype(np.float32, copy=False)
    except _runtime_errors() as error:
        raise CorruptModel(f"ONNX Runtime cannot run the model in {folder}: {error}. Import it again.") from error


def _runtime_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile,
            state.NotImplemented, state.RuntimeException)  # fmt: skip


def _feeds(session: Any, decoder: dict[str, Any], window: Ids) -> dict[str, NDArray[Any]]:
    """One row from an empty past. Inputs that the graph does not have are left out."""
    types = {value.name: np.float16 if "float16" in value.type else np.float32 for value in session.get_inputs()}
    names = decoder["inputs"]
    feeds: dict[str, NDArray[Any]] = {
        names["input_ids"]: window[None],
        names.get("attention_mask", "attention_mask"): np.ones((1, len(window)), np.int64),
        names.get("position_ids", "position_ids"): np.arange(len(window), dtype=np.int64)[None],
    }
    shape = (1, decoder["num_key_value_heads"], 0, decoder["head_size"])
    for layer in range(decoder["num_hidden_layers"]):
        for kind in ("past_key_names", "past_value_names"):
            name = names[kind] % layer
            feeds[name] = np.zeros(shape, types.get(name, np.float32))
    return {name: value for name, value in feeds.items() if name in types}
