"""Whose prompts a prefill step computes first. Pure.

Principals take turns, one step each. Of one principal's prompts the earliest and the shortest go first by turns: a short prompt
does not wait for a flood of long ones, and long ones have half of their principal's steps at least, in their order. More than two
are not interleaved: the others would end no earlier, and prompts that begin alike, such as the n of one request, find nothing to
reuse while all are computed at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtime.batching.sequence import Sequence


class PrefillTurns:
    """Remembers of each principal when its last turn was, and how many it has had."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._num_turns: dict[str, int] = {}
        self._num_ended = 0

    def order(self, prefilling: list[Sequence]) -> list[Sequence]:
        """prefilling: in the order of admission. All of them, the next to be computed first."""
        ordered: list[Sequence] = []
        for principal in sorted(dict.fromkeys(each.principal for each in prefilling), key=lambda each: self._last.get(each, 0)):
            prompts = [each for each in prefilling if each.principal == principal]
            if self._num_turns.get(principal, 0) % 2:
                prompts.sort(key=lambda each: each.prompt_len - each.num_computed)
            ordered += prompts
        return ordered

    def end(self, computed: Iterable[Sequence]) -> None:
        """A step computes chunks of these, in this order."""
        for principal in dict.fromkeys(each.principal for each in computed):
            self._num_ended += 1
            self._last[principal] = self._num_ended
            self._num_turns[principal] = self._num_turns.get(principal, 0) + 1
