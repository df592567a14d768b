"""Log probabilities of tokens, from the model's own logits. Pure; knows no sequence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtime.events import Alternative, TokenLogprob


def token_logprob(logits: NDArray[np.float32], token: int, num_top: int, token_bytes: Callable[[int], bytes]) -> TokenLogprob:
    """logits: of one place, [vocab], before anything changed them. num_top: how many of the likeliest tokens to name, from 0.

    Natural logarithms of the softmax; of equals, the lower id comes first, as greedy decoding takes it.
    """
    normalizer = _log_sum_exp(logits)
    top = [Alternative(each, token_bytes(each), float(logits[each]) - normalizer) for each in _likeliest(logits, num_top)]
    return TokenLogprob(token, token_bytes(token), float(logits[token]) - normalizer, top)


def certain(token: int, num_top: int, token_bytes: Callable[[int], bytes]) -> TokenLogprob:
    """Of a token beside which nothing else could stand, chosen without the model: its probability is one."""
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
