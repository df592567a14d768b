"""The measure itself: known values, windows, and how much is read of a large model."""

from __future__ import annotations

import numpy as np
import pytest

from model_registry.conversion.measure.perplexity import (
    TEXT,
    folder_perplexity,
    num_predicted,
    perplexity,
    plan_num_tokens,
    text_windows,
)
from model_registry.errors import CorruptModel
from tests.doubles.tiny_gguf import ImportTiny, Tiny

pytestmark = pytest.mark.model

WINDOWS = (np.array([1, 2, 3, 0], np.int64), np.array([2, 2], np.int64))


def test_knowing_nothing_is_as_perplexing_as_the_vocabulary_is_large() -> None:
    pieces = [np.zeros((len(window), 7), np.float32) for window in WINDOWS]
    assert perplexity(pieces, WINDOWS) == pytest.approx(7)
    assert num_predicted(WINDOWS) == 4


def test_knowing_everything_is_one() -> None:
    pieces = []
    for window in WINDOWS:
        logits = np.full((len(window), 7), -50, np.float32)
        logits[np.arange(len(window) - 1), window[1:]] = 50
        pieces.append(logits)
    assert perplexity(pieces, WINDOWS) == pytest.approx(1)


def test_pieces_of_a_window_add_up() -> None:
    logits = [np.random.default_rng(0).standard_normal((len(window), 7)).astype(np.float32) for window in WINDOWS]
    pieces = [logits[0][:1], logits[0][1:3], logits[0][3:], logits[1]]
    assert perplexity(pieces, WINDOWS) == pytest.approx(perplexity(logits, WINDOWS))


def test_only_what_counts_is_measured() -> None:
    """The first token of a window is given, and counts for nothing."""
    counts = (np.array([True, False, True, True]), np.array([True, False]))
    logits = [np.random.default_rng(0).standard_normal((len(window), 7)).astype(np.float32) for window in WINDOWS]
    logits[0][0] = logits[1][0] = np.nan
    rest = WINDOWS[0][1:]
    expected = perplexity([logits[0][1:]], [rest])
    assert perplexity(logits, WINDOWS, counts) == pytest.approx(expected)
    assert perplexity([logits[0][:2], logits[0][2:], logits[1]], WINDOWS, counts) == pytest.approx(expected)
    assert num_predicted(WINDOWS, counts) == num_predicted([rest]) == 2


@pytest.mark.parametrize(
    ("num_parameters", "largest_bytes", "available_bytes", "expected"),
    [
        (135_000_000, 113 << 20, 8 << 30, 2048),
        (1_500_000_000, 1 << 30, 8 << 30, 666),
        (7_600_000_000, 2 << 30, 20 << 30, 0),
        (135_000_000, 3 << 30, 4 << 30, 0),
    ],
)
def test_large_models_read_less(num_parameters: int, largest_bytes: int, available_bytes: int, expected: int) -> None:
    assert plan_num_tokens(num_parameters, largest_bytes, available_bytes) == expected


def test_windows_cover_the_text_once(import_tiny: ImportTiny) -> None:
    folder = import_tiny(Tiny()).folder
    windows = text_windows(folder, TEXT, 1000, context_length=300)
    assert [len(window) for window in windows] == [300, 300, 300, 100]


def test_windows_begin_with_the_tokenizers_first_token(import_tiny: ImportTiny) -> None:
    folder = import_tiny(Tiny(metadata={"tokenizer.ggml.add_bos_token": True})).folder
    windows = text_windows(folder, TEXT, 500, context_length=301)
    assert [len(window) for window in windows] == [301, 201]
    assert all(window[0] == 0 for window in windows)


def test_a_model_that_cannot_run_is_corrupt(import_tiny: ImportTiny) -> None:
    folder = import_tiny(Tiny()).folder
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-40])
    with pytest.raises(CorruptModel, match="cannot run"):
        folder_perplexity(folder, WINDOWS)


def test_the_text_is_long_enough() -> None:
    words = TEXT.read_text(encoding="utf-8").split()
    assert 1200 < len(words) < 1800
