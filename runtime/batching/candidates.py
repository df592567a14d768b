"""Truncation of one row's distribution, and a draw from what is left. Pure; order as Hugging Face's warpers:

top_k (Fan et al. 2018), top_p (Holtzman et al. 2020), min_p (Nguyen et al. 2024), typical_p (Meister et al. 2023),
each renormalizing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.batching.sequence import ResolvedParams

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
    """weights: exp(logit - max) of a row, float32 [vocab], so the largest is 1. At least one candidate is left."""
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
    """As `draw`, over a whole row in token order: first the block of tokens, then the token, so that nothing is sorted."""
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
