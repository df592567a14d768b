"""Tokens to text as they come, never cutting a character. Knows nothing of stop strings or of models."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class TextStream:
    """Incremental detokenizer of one sequence: each token's bytes go through an incremental UTF-8 decoder.

    Bytes that begin a character are held until it is whole; bytes that never become one turn into U+FFFD.
    """

    __slots__ = ("_decoder", "_token_bytes")

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(self._token_bytes(token))

    def flush(self) -> str:
        """The end of the output: what is left of an unfinished character."""
        return self._decoder.decode(b"", final=True)
