"""What an answer is expected to repeat, proposed piece by piece. Pure; knows no model.

A place in the prediction is found by the last tokens of the answer (prompt lookup decoding, Saxena 2023). Pieces grow while they
are right and shrink while they are wrong, and after wrong ones nothing is proposed for a while: a draft that is not verified costs
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST_LENGTH, SHORTEST, LONGEST = 8, 2, 32
NEEDLES = (3, 2)  # tokens by which a place is found, the longer first
FIRST_PAUSE, LONGEST_PAUSE = 2, 128  # tokens of the answer


@dataclass(slots=True, eq=False)
class Draft:
    """prediction: int32 [n]. at: the position in it from which the answer continued last; is_lost: whether the answer has left it.

    num_accepted, num_rejected: tokens, as Usage counts them; what a constraint forced is neither.
    seen: the answer's length at the last look; resumes_at: the length from which to propose again, `pause` tokens after a failure.
    """

    prediction: NDArray[np.int32]
    at: int = 0
    is_lost: bool = False
    length: int = FIRST_LENGTH
    pause: int = FIRST_PAUSE
    resumes_at: int = 0
    seen: int = 0
    num_accepted: int = 0
    num_rejected: int = 0

    def propose(self, answer: NDArray[np.int32], most: int) -> NDArray[np.int32]:
        """The tokens that may follow the answer, int32, at most `most`; empty where nothing is worth a try."""
        self._follow(answer)
        if self.is_lost or len(answer) < self.resumes_at:
            return self.prediction[:0]
        return self.prediction[self.at : self.at + min(self.length, max(0, most))]

    def judge(self, place: int, is_right: bool, num_proposed: int) -> None:
        """Records that the last proposal's token at `place` was compared with a choice; those before it were right."""
        self.num_accepted += int(is_right)
        self.num_rejected += 0 if is_right else num_proposed - place

    def adapt(self, num_proposed: int, num_right: int) -> None:
        """Adapts to a proposal of which the first num_right tokens became the answer's."""
        if num_right == num_proposed:
            self.length, self.pause = min(LONGEST, 2 * self.length), FIRST_PAUSE
        elif num_right >= max(1, self.length // 2):
            self.pause = FIRST_PAUSE
        else:
            self.length = max(SHORTEST, self.length // 2)
        if num_right == 0:
            self.resumes_at = self.seen + self.pause
            self.pause = min(LONGEST_PAUSE, 2 * self.pause)

    def _follow(self, answer: NDArray[np.int32]) -> None:
        """Moves on by what the answer has gained; where that is something else, looks for its end in the prediction."""
        gained = answer[self.seen :]
        self.seen = len(answer)
        if not self.is_lost:
            expected = self.prediction[self.at : self.at + len(gained)]
            if len(expected) == len(gained) and (expected == gained).all():
                self.at += len(gained)
                return
        found = self._found(answer)
        self.is_lost = found is None
        self.at = self.at if found is None else found

    def _found(self, answer: NDArray[np.int32]) -> int | None:
        """The place after the answer's last tokens: the first from where it was last, else the last before that."""
        for size in NEEDLES:
            if len(answer) < size or len(self.prediction) <= size:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(self.prediction[:-1], size)
            ends = np.flatnonzero((windows == answer[-size:]).all(axis=1)) + size
            if len(ends):
                later = ends[ends >= self.at]
                return int(later[0] if len(later) else ends[-1])
        return None
