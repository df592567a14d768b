"""One row's place in its grammar, by llguidance. Knows no request and no other row."""

from __future__ import annotations

from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.constraints.constraint import ConstraintBroken, GrammarTooComplex
from runtime.errors import Field
from runtime.panics import is_panic

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


@dataclass(frozen=True, slots=True)
class Masks:
    """What makes masks. vocab_size: of the model, which may differ from its tokenizer's. only: bits that may be set; None: all."""

    tokens: LLTokenizer
    vocab_size: int
    only: NDArray[np.int32] | None = None

    def empty(self) -> NDArray[np.int32]:
        """Bits for whichever are more, in whole words."""
        return np.zeros((max(self.tokens.vocab_size, self.vocab_size) + 31) // 32, np.int32)

    def fill(self, mask: NDArray[np.int32], matcher: LLMatcher) -> None:
        """What may come next. The library computes without the interpreter's lock."""
        num_words = (self.tokens.vocab_size + 31) // 32
        matcher.unsafe_compute_mask_ptr(mask.ctypes.data, num_words * 4)
        if self.only is not None:
            mask[:num_words] &= self.only

    def bits(self, mask: NDArray[np.int32]) -> NDArray[np.uint8]:
        """As `Constraint.allowed` gives them."""
        return mask.view(np.uint8)[: (self.vocab_size + 7) // 8]


class GrammarConstraint:
    """Implements `Constraint`. The next mask is computed on the background thread, which the rows share, while the model runs.

    A mask takes 5 us to 3 ms, handing it over 30 us, to find what is forced 5 us: that comes first, and spares the masks between.
    """

    def __init__(self, matcher: LLMatcher, masks: Masks, background: Executor, field: Field = Field.FORM) -> None:
        self._matcher = matcher
        self._masks = masks
        self._background = background
        self._field = field
        self._mask = masks.empty()
        self._filling: Future[None] | None = None
        self._forced: list[int] = []
        self._is_complete = False
        self._look_ahead()

    def allowed(self) -> NDArray[np.uint8]:
        self._settle()
        bits = self._masks.bits(self._mask)
        if self._forced:
            bits[:] = 0
            bits[self._forced[0] // 8] = 1 << self._forced[0] % 8
        elif self._is_complete:
            self._fill()
        return bits

    def accept(self, token: int) -> None:
        self._settle()
        if not self._matcher.consume_token(token):
            raise self._broken() if "too " in self._matcher.get_error() else ConstraintBroken(f"token {token} is not allowed")
        self._look_ahead()

    def forced(self) -> list[int]:
        return list(self._forced)

    @property
    def is_complete(self) -> bool:
        return self._is_complete

    def _look_ahead(self) -> None:
        self._filling = None
        self._is_complete = self._matcher.is_stopped()
        self._forced = [] if self._is_complete else forced_tokens(self._matcher, self._masks.tokens)
        if not self._forced and not self._is_complete:
            self._filling = self._background.submit(self._fill)

    def _fill(self) -> None:
        self._masks.fill(self._mask, self._matcher)

    def _settle(self) -> None:
        """The matcher is one thread's at a time."""
        if self._filling is not None:
            try:
                self._filling.result()
            except BaseException as error:
                if not is_panic(error):
                    raise
                raise self._broken() from error
        if self._matcher.is_error():
            raise self._broken()

    def _broken(self) -> GrammarTooComplex:
        return GrammarTooComplex(f"the grammar outgrew its limits ({self._matcher.stop_reason()})", self._field)


def forced_tokens(matcher: LLMatcher, tokens: LLTokenizer) -> list[int]:
    """What must come next, as the tokenizer would cut it.

    The library takes forced text that is spelled like a special token for that token, which the grammar does not mean.
    """
    forced = matcher.compute_ff_tokens()
    if forced and matcher.validate_tokens(forced[:1]) == 0:
        forced = tokens.greedy_tokenize(matcher.compute_ff_bytes().decode(errors="ignore"))
    return forced[: matcher.validate_tokens(forced)]
