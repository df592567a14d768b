"""llguidance on a vocabulary of bytes, with and without the special tokens that families write calls with."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from runtime.text.constraints.lark import with_tokens

EOS = 256
_CLOSING = frozenset(b'"}]')


class Bytes:
    """Bytes are the tokens of their numbers; then the end, then the special tokens."""

    eos_token_id = EOS
    bos_token_id = None

    def __init__(self, special: Iterable[str]) -> None:
        self.special = {text: EOS + 1 + i for i, text in enumerate(special)}
        self.tokens = [*(bytes([byte]) for byte in range(256)), b"\xff<eos>", *(b"\xff" + text.encode() for text in self.special)]
        self.special_token_ids = [EOS, *self.special.values()]

    def __call__(self, text: bytes) -> list[int]:
        return list(text)

    def encode(self, text: str) -> Iterator[int]:
        """With special tokens where the text spells them."""
        pattern = "|".join(map(re.escape, self.special)) or r"(?!)"
        for piece in re.split(f"({pattern})", text):
            if piece in self.special:
                yield self.special[piece]
            else:
                yield from piece.encode()

    def decode(self, tokens: Iterable[int]) -> str:
        names = {number: text.encode() for text, number in self.special.items()}
        return b"".join(names.get(token) or bytes([token]) for token in tokens).decode()


class Matching:
    """One grammar. special: the special tokens that the vocabulary has; other marks are text."""

    def __init__(self, lark: str, special: Iterable[str] = ()) -> None:
        self.vocabulary = Bytes(special)
        self._tokenizer = LLTokenizer(TokenizerWrapper(self.vocabulary))
        self._lark = with_tokens(lark, self.vocabulary.special.get)
        error = self._matcher().get_error()
        assert not error, f"{error}\n{self._lark}"

    def _matcher(self) -> LLMatcher:
        return LLMatcher(self._tokenizer, self._lark, log_level=0)

    def allows(self, text: str) -> bool:
        """Whether an answer may begin like this."""
        matcher = self._matcher()
        tokens = list(self.vocabulary.encode(text))
        return matcher.try_consume_tokens(tokens) == len(tokens)

    def accepts(self, text: str) -> bool:
        """Whether an answer may be this."""
        matcher = self._matcher()
        tokens = list(self.vocabulary.encode(text))
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    def walk(self, seed: int, *, prefix: str = "", max_tokens: int = 3000) -> str | None:
        """A random answer; None where it found no end."""
        draw, matcher = random.Random(seed), self._matcher()
        tokens = list(self.vocabulary.encode(prefix))
        assert matcher.consume_tokens(tokens)
        while len(tokens) < max_tokens:
            if matcher.is_stopped() or (matcher.is_accepting() and draw.random() < 0.5):
                return self.vocabulary.decode(tokens)
            allowed = [token for token in _numbers(matcher.compute_bitmask()) if token != EOS]
            closing = [token for token in allowed if token in _CLOSING]
            token = draw.choice(closing if closing and draw.random() < 0.5 else allowed)
            assert matcher.consume_token(token)
            tokens.append(token)
        return None


def _numbers(mask: bytes) -> list[int]:
    bits: NDArray[np.uint8] = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    return np.flatnonzero(bits).tolist()
