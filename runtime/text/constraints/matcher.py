"""One row's position in its grammar, by llguidance, over a vocabulary that is made of the model's tokenizer once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.protocol.errors import Field
from runtime.text.constraints.constraint import ConstraintBroken, GrammarTooComplex
from runtime.text.tokenizer import Tokenizer, is_panic

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


PAUSE_S = 0.05  # a few steps of a small model


class Vocabulary:
    """Thread-safe. Built on first use: 0.2 s for 49,000 tokens, 1.4 s for 262,000. vocab_size: logits per row.

    No other thread runs while the library builds its trie, so it is given the tokens, not the tokenizer's file, which would take it
    thrice as long, and builds in two parts, with a pause for others between: 0.5 s each for 262,000 tokens.
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: Iterable[int], vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = sorted(eos_ids)
        self._lock = threading.Lock()
        self.vocab_size = vocab_size

    @property
    def tokens(self) -> LLTokenizer:
        with self._lock:
            return self._built

    @cached_property
    def not_special(self) -> NDArray[np.int32]:
        """A bit for each token that has text or ends an answer, as in a mask."""
        tokens = self.tokens
        special = np.array([tokens.is_special_token(number) for number in range(tokens.vocab_size)])
        special[tokens.eos_tokens] = False
        bits = np.zeros(-tokens.vocab_size % 32 + tokens.vocab_size, np.uint8)
        bits[: tokens.vocab_size] = ~special
        return np.packbits(bits, bitorder="little").view(np.int32)

    def special(self, text: str) -> int | None:
        """The number of the special token that is spelled so, if there is one."""
        ids = self._tokenizer.encode(text, add_special_tokens=False)
        return ids[0] if len(ids) == 1 and self.tokens.is_special_token(ids[0]) else None

    @cached_property
    def _built(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        spelled = TokenizerWrapper(_Spelled(self._tokenizer, self._eos_ids, self.vocab_size))
        whole = LLTokenizer(spelled, eos_token=self._eos_ids, slices=[])
        time.sleep(PAUSE_S)
        return whole.with_slices(LLTokenizer.general_slices())


class _Spelled:
    """A tokenizer given by the bytes of its tokens; the interface that llguidance's TokenizerWrapper needs."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos_ids: list[int], vocab_size: int) -> None:
        read, read_text = (tokenizer.token_bytes(skip_special_tokens=skip) for skip in (False, True))
        self.tokens = [read(number) for number in range(vocab_size)]
        self.special_token_ids = [number for number in range(vocab_size) if self.tokens[number] and not read_text(number)]
        self.eos_token_id = eos_ids[0]
        self._tokenizer = tokenizer
        self._numbers = {read_text(number): number for number in reversed(range(vocab_size))}
        self._longest = max(map(len, self._numbers))

    def __call__(self, text: bytes) -> list[int]:
        ids = self._tokenizer.encode(text.decode(), add_special_tokens=False)
        is_faithful = b"".join(self.tokens[number] for number in ids) == text and not set(ids) & set(self.special_token_ids)
        return ids if is_faithful else self._longest_matches(text)

    def _longest_matches(self, text: bytes) -> list[int]:
        ids: list[int] = []
        start = 0
        while start < len(text):
            ends = range(min(len(text), start + self._longest), start, -1)
            end = next((end for end in ends if text[start:end] in self._numbers), None)
            if end is None:
                return ids
            ids.append(self._numbers[text[start:end]])
            start = end
        return ids


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
        """The bits in the form of `Constraint.allowed`."""
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
