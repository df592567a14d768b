"""From logits to delivered tokens: sampled, with their log probabilities, or why there are none. Knows no model and no queue."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listing

import numpy as np
from numpy.typing import NDArray

from runtime.batching.delivery import Delivery
from runtime.batching.failures import broken
from runtime.batching.sampler import Choice, Logits, Sampler, token_logprob
from runtime.batching.scheduler import Jump
from runtime.batching.sequence import Sequence
from runtime.batching.slots import common_prefix
from runtime.protocol.messages import StepReport
from runtime.text.constraints.constraint import ConstraintBroken

TIE = 0.25  # between logits: about as much as another kernel's last bits change one


class Chooser:
    """token_bytes: the bytes of each token, including special ones."""

    def __init__(self, sampler: Sampler, delivery: Delivery, token_bytes: Callable[[int], bytes]) -> None:
        self._sampler = sampler
        self._delivery = delivery
        self._token_bytes = token_bytes

    def choose(self, rows: Listing[Sequence], logits: Logits, report: StepReport) -> list[Sequence]:
        """A token for each row, from logits [rows, vocab], which are changed. Returns those that ended with it, or failed."""
        raw = {row: logits[row].copy() for row, sequence in enumerate(rows) if sequence.params.requested.logprobs is not None}
        ended = []
        for row, choice in enumerate(self._sampler.sample(logits, rows)):
            if self._take(rows[row], choice, raw.get(row), report):
                ended.append(rows[row])
            else:
                self._delivery.flush_chunk(rows[row], report)
        return ended

    def verify_draft(self, sequence: Sequence, jump: Jump, logits: Logits, report: StepReport) -> bool:
        """Verifies a jump: chooses tokens while each equals the one that the jump computed. True: the sequence ended, or failed.

        logits: after the last known and each drafted token, [1 + num_drafted, vocab]. Each choice is made as in a step, from the
        same draws; what was computed beyond the last right one is forgotten. A greedy answer takes what was drafted where no other
        token is clearly likelier, and leaves all other choices to ordinary steps: a draft that is wrong leaves no trace in it.
        """
        start, known, draft = sequence.num_computed, sequence.num_tokens, sequence.draft
        drafted = jump.tokens[known - start :]
        is_greedy = jump.num_drafted > 0 and sequence.params.temperature == 0
        ended = False
        while not ended and (place := sequence.num_tokens - known) < len(logits):
            if (sequence.tokens[known : known + place] != drafted[:place]).any():
                break
            raw = None if sequence.params.requested.logprobs is None else logits[place].copy()
            choice: Choice | None = self._sampler.adjust(logits[place], sequence)
            if choice is None and not is_greedy:
                (choice,) = self._sampler.choose(logits[place][None], [sequence])
            elif choice is None and place < jump.num_drafted and _is_among_best(drafted[place], logits[place]):
                choice = int(drafted[place])
            if draft is not None and place < jump.num_drafted:
                draft.judge(place, choice == drafted[place], jump.num_drafted)
            if choice is None:
                break
            ended = self._take(sequence, choice, raw, report)
        num_right = common_prefix(jump.tokens, sequence.known[start:])
        sequence.num_computed = min(start + num_right, sequence.num_tokens - 1)
        if sequence.num_computed > start:
            sequence.spans[start] = sequence.num_computed
        if draft is not None and jump.num_drafted:
            draft.adapt(jump.num_drafted, num_right - (known - start))
        if not ended:
            self._delivery.flush_chunk(sequence, report)
        return ended

    def read_prompt(self, sequence: Sequence, start: int, logits: Logits) -> None:
        """Log probabilities of the prompt's next tokens, from the logits [n, vocab] after each token of a chunk from `start`."""
        if start == 0:
            sequence.prompt_logprobs = [None]
        num_top = sequence.params.requested.prompt_logprobs or 0
        following = sequence.prompt[start + 1 : start + 1 + len(logits)].tolist()  # one less at the prompt's end
        for row, token in zip(logits, following, strict=False):
            sequence.prompt_logprobs.append(token_logprob(row, token, num_top, self._token_bytes))

    def _take(self, sequence: Sequence, choice: Choice, raw: NDArray[np.float32] | None, report: StepReport) -> bool:
        if not isinstance(choice, int):
            report.failed.append(broken(sequence.request, choice))
            return True
        num_top = sequence.params.requested.logprobs
        logprob = None if raw is None or num_top is None else token_logprob(raw, choice, num_top, self._token_bytes)
        try:
            return self._delivery.deliver(sequence, choice, report, logprob)
        except ConstraintBroken as error:
            report.failed.append(broken(sequence.request, error))
            return True


def _is_among_best(token: int, logits: Logits) -> bool:
    return bool(logits[token] >= logits.max() - TIE)
