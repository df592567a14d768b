"""Text to tokens and back, by the model's own `tokenizer.json` (Hugging Face tokenizers). Knows no template and no model.

`is_panic` recognizes panics of libraries written in Rust: `PanicException`, which is no `Exception`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import msgspec
from tokenizers import Tokenizer as HFTokenizer

from runtime.protocol.errors import InvalidRequest


def is_panic(error: BaseException) -> bool:
    """Whether it is `pyo3_runtime.PanicException`, which cannot be imported.

    A panic unwinds to the call that caused it. The library's objects stay usable where that call only reads, as with a regular
    expression that gives up.
    """
    return (type(error).__module__, type(error).__name__) == ("pyo3_runtime", "PanicException")


_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer. `token_bytes`: a function from a token's id to its bytes within text."""

    @property
    def longest_token(self) -> int:
        """The most characters of text that one token may have."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Raises InvalidRequest (`tokenizer_error`) for a text that the tokenizer cannot read."""
        ...

    def decode(self, token_ids: list[int]) -> str:
        """Raises likewise."""
        ...

    def token_bytes(self, *, skip_special_tokens: bool) -> Callable[[int], bytes]: ...


class ModelTokenizer:
    """The tokenizer in a model's folder. Thread-safe: encode runs on the intake thread while the engine's thread detokenizes."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError with the library's reason when the file cannot be read as a tokenizer."""
        try:
            content = path.read_bytes()
            self._inner = HFTokenizer.from_buffer(content)
            kinds = _decoder_kinds(content)
        except BaseException as error:  # the library raises bare Exception, and panics
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise ValueError(f"cannot read {path.name}: {error}") from error
        self._inner.no_truncation()
        self._inner.no_padding()
        self._added = dict(self._inner.get_added_tokens_decoder())
        self._to_bytes = _byte_reader(kinds, self._inner)
        self._cache: dict[int, bytes] = {}
        self.vocab_size: int = self._inner.get_vocab_size(with_added_tokens=True)
        self.longest_token: int = max(map(len, self._inner.get_vocab(with_added_tokens=True)), default=1)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        with _readable():
            return list(self._inner.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: list[int]) -> str:
        with _readable():
            return str(self._inner.decode(token_ids, skip_special_tokens=False))

    def token_bytes(self, *, skip_special_tokens: bool) -> Callable[[int], bytes]:
        cache, compute, added = self._cache, self._bytes_of, self._added

        def read(token_id: int) -> bytes:
            if skip_special_tokens and (token := added.get(token_id)) is not None and token.special:
                return b""
            known = cache.get(token_id)
            if known is None:
                known = cache[token_id] = compute(token_id)
            return known

        return read

    def _bytes_of(self, token_id: int) -> bytes:
        if (added := self._added.get(token_id)) is not None:
            return str(added.content).encode()
        token = self._inner.id_to_token(token_id)
        with _readable():
            return b"" if token is None else self._to_bytes(token_id, token)


@contextmanager
def _readable() -> Iterator[None]:
    """A panic concerns only this text: a regular expression exceeded its limits. The tokenizer itself stays usable."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise InvalidRequest(
            "The model's tokenizer cannot read this text: it panicked on it. Change the text, or use another model.",
            code="tokenizer_error",
        ) from error


class _Decoder(msgspec.Struct):
    type: str
    decoders: list[_Decoder] = []


class _TokenizerFile(msgspec.Struct):
    """What is read of tokenizer.json beside what the library reads."""

    decoder: _Decoder | None = None


def _decoder_kinds(content: bytes) -> frozenset[str]:
    """The types of the decoders in a tokenizer.json, those in a sequence among them. Raises ValueError."""
    pending, kinds = [msgspec.json.decode(content, type=_TokenizerFile).decoder], set()
    while pending:
        if (decoder := pending.pop()) is not None:
            kinds.add(decoder.type)
            pending.extend(decoder.decoders)
    return frozenset(kinds)


def _byte_reader(decoders: frozenset[str], inner: HFTokenizer) -> Callable[[int, str], bytes]:
    """How this tokenizer's vocabulary spells bytes: byte-level BPE, SentencePiece with byte fallback, or by its own decoder."""
    if "ByteLevel" in decoders:
        table = byte_level_alphabet()
        return lambda _, token: bytes(table[c] for c in token) if all(c in table for c in token) else token.encode()
    if decoders & {"ByteFallback", "Metaspace"}:
        return lambda _, token: _sentencepiece_bytes(token)
    return lambda token_id, _: str(inner.decode([token_id], skip_special_tokens=False)).encode()


def _sentencepiece_bytes(token: str) -> bytes:
    if match := _BYTE_FALLBACK.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("\u2581", " ").encode()


def byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in character of each byte (Radford et al. 2019, `bytes_to_unicode`), inverted."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}
