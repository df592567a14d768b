"""What steps have cost lately, in seconds: a moving average that the prefill budget is computed from. Knows no clock."""

from __future__ import annotations

_WEIGHT = 0.2


class StepCosts:
    """token_s: prefill seconds per prompt token; decode_s: seconds of a decode step. Zero until first observed."""

    def __init__(self) -> None:
        self.token_s = 0.0
        self.decode_s = 0.0

    def saw_prefill(self, seconds: float, num_tokens: int) -> None:
        if num_tokens >= 8:  # shorter chunks are all overhead and would shrink the next budget
            self.token_s = _blend(self.token_s, seconds / num_tokens)

    def saw_decode(self, seconds: float) -> None:
        self.decode_s = _blend(self.decode_s, seconds)


def _blend(old: float, new: float) -> float:
    return new if old == 0 else old + _WEIGHT * (new - old)
