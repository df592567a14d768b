"""Walks through a grammar's masks: random answers, and given ones. Tokens are bytes, as the fake model's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from runtime.engines.fake import EOS, VOCAB_SIZE, ByteTokenizer
from runtime.protocol.request import Grammar, GrammarKind
from runtime.text.constraints.compiler import GrammarCompiler
from runtime.text.constraints.constraint import Constraint, ConstraintBroken

_ENDS = (EOS, ord('"'), ord("}"), ord("]"))


def byte_compiler() -> GrammarCompiler:
    return GrammarCompiler(ByteTokenizer(), {EOS}, VOCAB_SIZE)


def schema_grammar(schema: Any) -> Grammar:
    return Grammar(kind=GrammarKind.JSON_SCHEMA, source=json.dumps(schema))


def allowed_tokens(constraint: Constraint, vocab_size: int = VOCAB_SIZE) -> list[int]:
    allowed = constraint.allowed()
    assert allowed is not None
    assert allowed.shape == ((vocab_size + 7) // 8,)
    bits: list[int] = np.flatnonzero(np.unpackbits(allowed, count=vocab_size, bitorder="little")).tolist()
    return bits


def random_answer(constraint: Constraint, random: Random, most: int = 300) -> bytes | None:
    """What was chosen, evenly among the allowed but for a liking for ends; None: not finished after so many bytes."""
    expected_text = bytearray()
    while not constraint.is_complete:
        tokens = allowed_tokens(constraint)
        assert tokens, "nothing may follow, although the answer is not complete"
        ends = [token for token in tokens if token in _ENDS]
        token = random.choice(ends if ends and random.random() < 0.3 else tokens)
        if token == EOS:
            break
        expected_text += bytes([token, *_after(constraint, token)])
        if len(expected_text) > most:
            return None
    return bytes(expected_text)


def _after(constraint: Constraint, token: int) -> Iterator[int]:
    """Accepts the token, and what must follow it."""
    constraint.accept(token)
    while forced := constraint.forced():
        for follower in forced:
            constraint.accept(follower)
            yield follower


def accepts(constraint: Constraint, text: str) -> bool:
    """Whether this is an answer."""
    for byte in text.encode():
        if constraint.is_complete:
            return False
        try:
            constraint.accept(byte)
        except ConstraintBroken:
            return False
    return constraint.is_complete or EOS in allowed_tokens(constraint)
