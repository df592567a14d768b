"""The choice of each row's next token. Knows logits and sequences; no model, no text.

Order of operations: logit_bias, penalties, minimum length, constraint, temperature, truncation, draw. A row's choice depends on
that row alone: the same request gives the same tokens in any batch. Temperature 0 takes the largest logit, the lowest id of equals.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing

import numpy as np
from numpy.typing import NDArray

from runtime.batching.candidates import draw, draw_from_all, truncate, truncates
from runtime.batching.sequence import Sequence
from runtime.constraints.constraint import ConstraintBroken

Logits = NDArray[np.float32]


class NothingToChoose(Exception):
    """A row's scores are not numbers, or every token is excluded."""


Choice = int | NothingToChoose | ConstraintBroken


class Sampler:
    """eos_ids: tokens that a row may not choose before its min_tokens."""

    def __init__(self, eos_ids: frozenset[int]) -> None:
        self._eos_ids = eos_ids

    def sample(self, logits: Logits, rows: Listing[Sequence]) -> list[Choice]:
        """logits: float32 [rows, vocab]; changed in place. Returns a token for each row, in order, or why it has none."""
        broken = {row: error for row, sequence in enumerate(rows) if (error := self.adjust(logits[row], sequence))}
        choices = self.choose(logits, rows)
        for row, error in broken.items():
            choices[row] = error
        return choices

    def adjust(self, logits: Logits, sequence: Sequence) -> ConstraintBroken | None:
        """All that comes before the temperature, to one row's logits [vocab], in place. Returns why its constraint cannot go on."""
        _adjust(logits, sequence, self._eos_ids)
        if sequence.constraint is None:
            return None
        try:
            allowed = sequence.constraint.allowed()
        except ConstraintBroken as error:
            return error
        if allowed is not None:
            logits[np.unpackbits(allowed, count=len(logits), bitorder="little") == 0] = -np.inf
        return None

    def choose(self, logits: Logits, rows: Listing[Sequence]) -> list[Choice]:
        """As `sample`, of logits that are adjusted. One draw of each row that draws at all."""
        best = logits.argmax(axis=-1)
        usable = np.isfinite(np.take_along_axis(logits, best[:, None], axis=-1)[:, 0]).tolist()
        tokens: list[Choice] = [token if usable[row] else NothingToChoose() for row, token in enumerate(best.tolist())]
        drawn = [row for row, sequence in enumerate(rows) if sequence.params.temperature > 0 and usable[row]]
        if drawn:
            temperatures = np.array([rows[row].params.temperature for row in drawn], np.float32)
            for row, weights in zip(drawn, _weights(logits, drawn, temperatures), strict=True):
                token = _draw(weights, rows[row])
                if weights[token] > 0:  # else it is excluded, and rounding alone has led there: the best stands
                    tokens[row] = token
        return tokens


def _weights(logits: Logits, rows: list[int], temperatures: Logits) -> Logits:
    """exp((logit - max) / temperature) of the given rows, float32 [len(rows), vocab]."""
    chosen = logits if len(rows) == len(logits) else logits[rows]
    chosen = np.asarray(chosen - chosen.max(axis=-1, keepdims=True), np.float32)
    chosen /= temperatures[:, None]
    np.exp(chosen, out=chosen)
    return chosen


def _draw(weights: Logits, sequence: Sequence) -> int:
    uniform = sequence.rng.random()
    if truncates(sequence.params):
        return draw(truncate(weights, sequence.params), uniform)
    return draw_from_all(weights, uniform)


def _adjust(logits: Logits, sequence: Sequence, eos_ids: frozenset[int]) -> None:
    asked = sequence.params.asked
    if asked.logit_bias:
        logits[list(asked.logit_bias)] += np.fromiter(asked.logit_bias.values(), np.float32)
    if sequence.params.repetition_penalty != 1.0:
        _penalize_repetition(logits, np.unique(sequence.known), sequence.params.repetition_penalty)
    if asked.presence_penalty or asked.frequency_penalty:
        ids, counts = np.unique(sequence.known[sequence.prompt_len :], return_counts=True)
        logits[ids] -= (asked.presence_penalty + asked.frequency_penalty * counts).astype(np.float32)
    if sequence.num_generated < asked.min_tokens:
        logits[[*eos_ids, *asked.stop_token_ids]] = -np.inf


def _penalize_repetition(logits: Logits, seen: NDArray[np.int32], penalty: float) -> None:
    """Keskar et al. 2019 (CTRL): likely tokens are divided by the penalty, unlikely ones multiplied."""
    values = logits[seen]
    logits[seen] = np.where(values > 0, values / penalty, values * penalty)
