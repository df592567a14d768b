"""What a worker answers to Tokenize and Detokenize, by its engine's tokenizer. Runs no model."""

from __future__ import annotations

from runtime.engines.protocol import Engine
from runtime.errors import Field, InvalidRequest
from runtime.messages import Detokenize, Detokenized, Tokenize, Tokenized


def answered(engine: Engine, asked: Tokenize | Detokenize) -> Tokenized | Detokenized:
    """Thread-safe. Raises InvalidRequest."""
    return _tokenized(engine, asked) if isinstance(asked, Tokenize) else _detokenized(engine, asked)


def _tokenized(engine: Engine, asked: Tokenize) -> Tokenized:
    ids = engine.tokenize(asked.prompt)
    read = engine.tokenizer.token_bytes(skip_special_tokens=False)
    return Tokenized(
        request=asked.request,
        token_ids=ids,
        tokens=[read(token) for token in ids],
        context_length=engine.info.context_length,
    )


def _detokenized(engine: Engine, asked: Detokenize) -> Detokenized:
    """Special tokens are written out."""
    vocab_size = engine.info.vocab_size
    if any(not 0 <= token < vocab_size for token in asked.token_ids):
        raise InvalidRequest(f"A token id is outside the vocabulary (0 to {vocab_size - 1}).", field=Field.TOKEN_IDS)
    return Detokenized(request=asked.request, text=engine.tokenizer.decode(asked.token_ids))
