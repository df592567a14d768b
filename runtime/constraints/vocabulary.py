"""A model's tokenizer as llguidance reads it. Knows no grammar and no row."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

PAUSE_S = 0.05  # a few steps of a small model


class Vocabulary:
    """Thread-safe. Built when it is first asked for: 0.2 s for 49,000 tokens, 1.4 s for 262,000. vocab_size: logits per row.

    No other thread runs while the library builds its trie, so it is told the tokens, not the tokenizer's file, which would take it
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
        """A bit for each token that stands for text or ends an answer, as in a mask."""
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
    """A tokenizer given by the bytes of its tokens; what llguidance's TokenizerWrapper asks for."""

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
