"""The choice of a token, spelled out slowly in float64 on whole vocabularies: what the vectorized sampler must agree with."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from runtime.batching.sequence import ResolvedParams, Sequence


def distribution(logits: NDArray[np.float32], sequence: Sequence, eos_ids: frozenset[int]) -> dict[int, float]:
    """Token -> probability of every token that may be drawn; the largest logit alone at temperature 0."""
    scores = adjusted(logits, sequence, eos_ids)
    params = sequence.params
    if params.temperature == 0:
        return {max(range(len(scores)), key=lambda i: (scores[i], -i)): 1.0}
    top = max(scores)
    weights = [math.exp((score - top) / params.temperature) for score in scores]
    shares = _normalized(dict(enumerate(weights)))
    for keep in (_top_k, _top_p, _min_p, _typical):
        shares = _normalized(keep(shares, params))
    return shares


def adjusted(logits: NDArray[np.float32], sequence: Sequence, eos_ids: frozenset[int]) -> list[float]:
    scores = [float(value) for value in logits]
    requested, penalty = sequence.params.requested, sequence.params.repetition_penalty
    for token, bias in requested.logit_bias.items():
        scores[token] += bias
    prompt, output = sequence.known[: sequence.prompt_len].tolist(), sequence.known[sequence.prompt_len :].tolist()
    for token in {*prompt, *output}:
        scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
    for token in set(output):
        scores[token] -= requested.presence_penalty + requested.frequency_penalty * output.count(token)
    if len(output) < requested.min_tokens:
        for token in {*eos_ids, *requested.stop_token_ids}:
            scores[token] = -math.inf
    return scores


def _normalized(shares: dict[int, float]) -> dict[int, float]:
    total = sum(shares.values())
    return {token: share / total for token, share in shares.items()}


def _ranked(shares: dict[int, float]) -> list[int]:
    return sorted(shares, key=lambda token: (-shares[token], token))


def _top_k(shares: dict[int, float], params: ResolvedParams) -> dict[int, float]:
    k = params.top_k
    return {token: shares[token] for token in _ranked(shares)[:k]} if k else shares


def _top_p(shares: dict[int, float], params: ResolvedParams) -> dict[int, float]:
    p = params.top_p
    return _until(p, _ranked(shares), shares) if p < 1 else shares


def _min_p(shares: dict[int, float], params: ResolvedParams) -> dict[int, float]:
    least = params.min_p * max(shares.values())
    return {token: share for token, share in shares.items() if share >= least}


def _typical(shares: dict[int, float], params: ResolvedParams) -> dict[int, float]:
    mass = params.typical_p
    if mass >= 1:
        return shares
    surprise = {token: -math.log(max(share, 1e-300)) for token, share in shares.items()}
    entropy = sum(shares[token] * surprise[token] for token in shares)
    return _until(mass, sorted(shares, key=lambda token: abs(surprise[token] - entropy)), shares)


def _until(mass: float, order: list[int], shares: dict[int, float]) -> dict[int, float]:
    """The fewest tokens in this order that hold `mass`."""
    kept: dict[int, float] = {}
    for token in order:
        kept[token] = shares[token]
        if sum(kept.values()) >= mass:
            break
    return kept
