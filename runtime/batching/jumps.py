"""Which tokens of a decoding row are computed together, before the step of all rows. Pure; knows no model.

Tokens that are known before they are computed need no step each: those that a constraint forces, and those that a prediction
proposes, which are verified. A chunk of k tokens costs about 5.6 ms + 1.1 ms k on two cores with the default model, a step of n
rows 6 ms + 0.9 ms n, and everybody waits for a chunk. So a row jumps when a chunk saves it as many steps as there are rows that
wait.

ONNX Runtime computes one token by another kernel than several (see `slots`), so what is computed together shows in the last bits. A
repeatable row therefore jumps whenever it can, whoever runs beside it. In each step a row jumps once at most, then takes part in
the step of all: which of its tokens go together depends on nothing but itself. After a preemption they go together as they did.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.batching.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Jump:
    """tokens: int32 [n], two at least, that follow those which the row holds; the last num_drafted of them are proposed only.

    replays_to: how many tokens the row holds afterwards, where they were computed once before; None: the next is to be chosen.
    """

    tokens: NDArray[np.int32]
    num_drafted: int = 0
    replays_to: int | None = None


def plan_jump(sequence: Sequence, num_decoding: int) -> Jump | None:
    """num_decoding: rows in the next step, this one among them."""
    if sequence.num_computed < sequence.num_settled:
        return _plan_replay(sequence)
    if sequence.num_pending > 1:
        worth = _is_worth(sequence, sequence.num_pending - 1, num_decoding)
        return Jump(sequence.known[sequence.num_computed :]) if worth else None
    if sequence.draft is None:
        return None
    most = sequence.params.max_tokens - sequence.num_generated - 1  # one more is chosen after the last
    drafted = sequence.draft.propose(sequence.known[sequence.prompt_len :], most)
    if not len(drafted) or not _is_worth(sequence, len(drafted), num_decoding):
        return None
    return Jump(np.concatenate((sequence.known[sequence.num_computed :], drafted)), len(drafted))


def _plan_replay(sequence: Sequence) -> Jump | None:
    """A span of one token was computed in a chunk of more, and is again: the token after it is known by now."""
    start = sequence.num_computed
    end = sequence.spans.get(start)
    return None if end is None else Jump(sequence.tokens[start : max(end, start + 2)], replays_to=end)


def _is_worth(sequence: Sequence, num_saved: int, num_decoding: int) -> bool:
    return sequence.is_repeatable or num_saved >= num_decoding - 1
