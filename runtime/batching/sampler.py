"""The choice of each row's next token: penalties, temperature, truncation, draw, and log probabilities. Knows no text.

Order of operations: logit_bias, penalties, minimum length, constraint, temperature, truncation, draw. A row's choice depends on
that row alone: the same request gives the same tokens in any batch. Temperature 0 takes the largest logit, of equals the lowest
id.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.batching.sequence import ResolvedParams, Sequence
from runtime.protocol.events import Alternative, TokenLogprob
from runtime.text.constraints.constraint import ConstraintBroken


def token_logprob(logits: NDArray[np.float32], token: int, num_top: int, token_bytes: Callable[[int], bytes]) -> TokenLogprob:
    """logits: of one place, [vocab], before anything changed them. num_top: how many of the likeliest tokens to name, from 0.

    Natural logarithms of the softmax; of equals, the lower id comes first, as greedy decoding takes it.
    """
    normalizer = _log_sum_exp(logits)
    top = [Alternative(each, token_bytes(each), float(logits[each]) - normalizer) for each in _likeliest(logits, num_top)]
    return TokenLogprob(token, token_bytes(token), float(logits[token]) - normalizer, top)


def certain(token: int, num_top: int, token_bytes: Callable[[int], bytes]) -> TokenLogprob:
    """The log probability of a token without alternatives, which was chosen without the model: its probability is one."""
    spelled = token_bytes(token)
    return TokenLogprob(token, spelled, 0.0, [Alternative(token, spelled, 0.0)] if num_top else [])


def _log_sum_exp(logits: NDArray[np.float32]) -> float:
    highest = logits.max()
    return float(highest) + float(np.log(np.exp(logits - highest).sum(dtype=np.float64)))


def _likeliest(logits: NDArray[np.float32], count: int) -> list[int]:
    """Ids by falling logit, then by rising id. Whatever equals the last of them competes with it, so that ids decide."""
    if count == 0:
        return []
    count = min(count, len(logits))
    least = np.partition(logits, len(logits) - count)[len(logits) - count]
    ids = np.flatnonzero(logits >= least)
    ranked: list[int] = ids[np.lexsort((ids, -logits[ids]))][:count].tolist()
    return ranked


_FIRST_FLOOR, _FLOOR_STEP, _LAST_FLOOR = 1e-2, 0.1, 1e-10
_LAST_ID = 0xFFFFFFFF
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Candidates:
    """Token ids by falling weight, int64 [k], and their weights, float64 [k], not normalized."""

    ids: NDArray[np.int64]
    weights: NDArray[np.float64]


def truncates(params: ResolvedParams) -> bool:
    return params.top_k > 0 or params.top_p < 1 or params.min_p > 0 or params.typical_p < 1


def truncate(weights: NDArray[np.float32], params: ResolvedParams) -> Candidates:
    """weights: exp(logit - max) of a row, float32 [vocab], so the largest is 1. At least one candidate is left.

    In the order of Hugging Face's warpers: top_k (Fan et al. 2018), top_p (Holtzman et al. 2020), min_p (Nguyen et al. 2024),
    typical_p (Meister et al. 2023), each renormalizing.
    """
    total = float(weights.sum())
    ids = _by_weight(_likely(weights, total, params), weights)
    if params.top_k > 0:
        ids = ids[: params.top_k]
    kept = weights[ids].astype(np.float64)
    if params.top_p < 1:
        if params.top_k > 0:
            total = float(kept.sum())
        keep = int(np.searchsorted(np.cumsum(kept), params.top_p * total)) + 1
        ids, kept = ids[:keep], kept[:keep]
    if params.min_p > 0:
        keep = max(1, int((kept >= params.min_p * kept[0]).sum()))
        ids, kept = ids[:keep], kept[:keep]
    if params.typical_p < 1:
        ids, kept = _typical(ids, kept, params.typical_p)
    return Candidates(ids, kept)


def _by_weight(ids: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """ids by falling weight, the lower id first of equals. Sorts integers that hold both: faster than a stable argsort.

    The bits of floats that are not negative are in the order of their values.
    """
    keys = weights[ids].view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= (_LAST_ID - ids).astype(np.uint64)
    keys.sort()
    ordered: NDArray[np.int64] = _LAST_ID - (keys[::-1] & np.uint64(_LAST_ID)).astype(np.int64)
    return ordered


def _likely(weights: NDArray[np.float32], total: float, params: ResolvedParams) -> NDArray[np.int64]:
    """Every token that can survive top_k, top_p or min_p, found by lowering a floor: sorting a whole vocabulary is slow."""
    if params.top_k == 0 and params.top_p >= 1:
        return np.flatnonzero(weights >= np.float32(params.min_p) * 0.999) if params.min_p > 0 else np.arange(len(weights))
    mass = params.top_p * total * (1 + 1e-5)  # sums of float32 are that precise
    floor = _FIRST_FLOOR
    while floor >= _LAST_FLOOR:
        ids = np.flatnonzero(weights > floor)
        enough = len(ids) >= params.top_k if params.top_k > 0 else float(weights[ids].sum()) >= mass
        if enough:
            return ids
        floor *= _FLOOR_STEP
    return np.arange(len(weights))


def _typical(ids: NDArray[np.int64], kept: NDArray[np.float64], mass: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens whose surprise is nearest to the entropy, until they hold `mass`."""
    shares = kept / kept.sum()
    surprise = -np.log(np.maximum(shares, 1e-300))
    order = np.argsort(np.abs(surprise - (shares * surprise).sum()), kind="stable")
    keep = int(np.searchsorted(np.cumsum(shares[order]), mass)) + 1
    return ids[order[:keep]], kept[order[:keep]]


def draw(candidates: Candidates, uniform: float) -> int:
    """The candidate at `uniform` in [0, 1) of the cumulated weight."""
    edges = np.cumsum(candidates.weights)
    return int(candidates.ids[min(np.searchsorted(edges, uniform * edges[-1], side="right"), len(edges) - 1)])


def draw_from_all(weights: NDArray[np.float32], uniform: float) -> int:
    """Like `draw`, over a whole row in token order: chooses the block of tokens first, then the token, so that nothing is
    sorted.
    """
    padded = len(weights) - len(weights) % _BLOCK
    blocks = weights[:padded].reshape(-1, _BLOCK).sum(axis=1, dtype=np.float64)
    sums = np.append(blocks, weights[padded:].sum(dtype=np.float64))
    edges = np.cumsum(sums)
    target = uniform * edges[-1]
    block = min(int(np.searchsorted(edges, target, side="right")), len(edges) - 1)
    start = block * _BLOCK
    inside = np.cumsum(weights[start : start + _BLOCK], dtype=np.float64)
    before = edges[block - 1] if block else 0.0
    return start + min(int(np.searchsorted(inside, target - before, side="right")), len(inside) - 1)


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
        """Like `sample`, for adjusted logits. Makes one draw per row that is not greedy."""
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
    requested = sequence.params.requested
    if requested.logit_bias:
        logits[list(requested.logit_bias)] += np.fromiter(requested.logit_bias.values(), np.float32)
    if sequence.params.repetition_penalty != 1.0:
        _penalize_repetition(logits, np.unique(sequence.known), sequence.params.repetition_penalty)
    if requested.presence_penalty or requested.frequency_penalty:
        ids, counts = np.unique(sequence.known[sequence.prompt_len :], return_counts=True)
        logits[ids] -= (requested.presence_penalty + requested.frequency_penalty * counts).astype(np.float32)
    if sequence.num_generated < requested.min_tokens:
        logits[[*eos_ids, *requested.stop_token_ids]] = -np.inf


def _penalize_repetition(logits: Logits, seen: NDArray[np.int32], penalty: float) -> None:
    """Keskar et al. 2019 (CTRL): likely tokens are divided by the penalty, unlikely ones multiplied."""
    values = logits[seen]
    logits[seen] = np.where(values > 0, values / penalty, values * penalty)
