"""The thought before an answer: counted, closed when its budget is used up, and left before a grammar begins. Knows no model.

Tags are looked for in the bytes of the tokens, so that it does not matter how a tokenizer cuts them.

With a grammar, a thought that the model may or may not open begins with a single token, or not at all: where the opening tag has
several, its first ones could as well be the grammar's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from runtime.text.constraints.constraint import Constraint

Mask = NDArray[np.uint8]


class _Place(Enum):
    """BEFORE: nothing of the answer is there but white space or a part of the opening tag. AFTER: no thought comes any more."""

    BEFORE = auto()
    INSIDE = auto()
    CLOSING = auto()
    AFTER = auto()


@dataclass(frozen=True, slots=True)
class ThoughtTags:
    """How a model's thoughts begin and end, in text and in tokens.

    open_token: the opening tag where it is one token. closing: the tokens that end a thought whose budget is used up.
    spilling: tokens in which something else than white space follows what may be the end of a closing tag.
    token_bytes: the bytes of each token, including special ones. eos_ids: tokens that end an answer.
    """

    open: bytes
    close: bytes
    open_token: int | None
    closing: tuple[int, ...]
    spilling: tuple[int, ...]
    token_bytes: Callable[[int], bytes]
    vocab_size: int
    eos_ids: frozenset[int]


class Thinking:
    """Implements `Constraint`. inner: what the answer after the thought must be; None: anything. budget: tokens; None: no limit.

    num_tokens: of the thought so far, its tags among them, but not those in the prompt.
    """

    def __init__(self, tags: ThoughtTags, inner: Constraint | None, *, budget: int | None, in_thought: bool) -> None:
        self._tags = tags
        self._inner = inner
        self._budget = budget
        self._place = _Place.INSIDE if in_thought else _Place.BEFORE
        self._tail = b""
        self._left: list[int] = []  # of the closing, while it is written
        self._is_first = True
        self._within = _all_but(tags.eos_ids, tags.vocab_size)
        self.num_tokens = 0

    def allowed(self) -> Mask | None:
        self._close_if_due()
        if self._place is _Place.CLOSING:
            return _only(self._left[0], self._tags.vocab_size)
        if self._inner is None:
            return None
        if self._place is _Place.INSIDE:
            return self._allowed_within()
        allowed = self._inner.allowed()
        if allowed is None or not self._may_open:
            return allowed
        token = self._tags.open_token
        assert token is not None
        opened = allowed.copy()
        opened[token // 8] |= 1 << token % 8
        return opened

    def accept(self, token: int) -> None:
        may_open, self._is_first = self._may_open, False
        match self._place:
            case _Place.CLOSING:
                self._left.pop(0)
                self.num_tokens += 1
                if not self._left:
                    self._place = _Place.AFTER
            case _Place.INSIDE:
                self._look_for_close(token)
            case _Place.BEFORE if self._inner is None:
                self._look_for_open(token)
            case _Place.BEFORE if may_open and token == self._tags.open_token:
                self._place, self.num_tokens = _Place.INSIDE, 1
            case _:
                self._place = _Place.AFTER
                if self._inner is not None:
                    self._inner.accept(token)

    def forced(self) -> list[int]:
        self._close_if_due()
        if self._place is _Place.CLOSING:
            return list(self._left)
        return [] if self._inner is None or self._place is not _Place.AFTER else self._inner.forced()

    @property
    def is_complete(self) -> bool:
        return self._inner is not None and self._place is _Place.AFTER and self._inner.is_complete

    @property
    def _may_open(self) -> bool:
        """Whether the next token may open a thought before a grammar."""
        return self._place is _Place.BEFORE and self._is_first and self._tags.open_token is not None and self._budget != 0

    def _close_if_due(self) -> None:
        if self._place is _Place.INSIDE and self._budget is not None and self.num_tokens >= self._budget:
            self._place, self._left = _Place.CLOSING, list(self._tags.closing)

    def _allowed_within(self) -> Mask:
        """Neither the end of the answer, nor a token that closes the thought and has more text: the grammar could not see its
        rest.
        """
        tail, close, read = self._tail, self._tags.close, self._tags.token_bytes
        if not any(tail.endswith(close[:size]) for size in range(1, len(close))):
            return self._within
        allowed = self._within.copy()
        for token in self._tags.spilling:
            if (tail + read(token)).partition(close)[2].strip():
                allowed[token // 8] &= ~(1 << token % 8) & 0xFF
        return allowed

    def _look_for_open(self, token: int) -> None:
        self._tail += self._tags.token_bytes(token)
        self.num_tokens += 1
        begun = self._tail.lstrip()
        if begun.startswith(self._tags.open):
            self._place, self._tail = _Place.INSIDE, begun[len(self._tags.open) :]
        elif not self._tags.open.startswith(begun):
            self._place, self.num_tokens = _Place.AFTER, 0

    def _look_for_close(self, token: int) -> None:
        self.num_tokens += 1
        self._tail += self._tags.token_bytes(token)
        if self._tags.close in self._tail:
            self._place, self._tail = _Place.AFTER, b""
        else:
            self._tail = self._tail[-len(self._tags.close) + 1 :]


def _all_but(excluded: frozenset[int], vocab_size: int) -> Mask:
    allowed = np.ones(vocab_size, np.uint8)
    allowed[[token for token in excluded if token < vocab_size]] = 0
    return np.packbits(allowed, bitorder="little")


def _only(token: int, vocab_size: int) -> Mask:
    allowed = np.zeros((vocab_size + 7) // 8, np.uint8)
    allowed[token // 8] = 1 << token % 8
    return allowed
