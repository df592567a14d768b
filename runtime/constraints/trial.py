"""Compiles a grammar to see whether it can be, by a vocabulary of bytes: how long that takes depends on the grammar alone."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from runtime.constraints.json_schema import MAX_SCHEMAS
from runtime.constraints.lark import with_tokens

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_BRANCHES = 5 * MAX_SCHEMAS  # an optional property makes four


def new_matcher(tokens: LLTokenizer, lark: str) -> LLMatcher:
    """lark: without marks of `lark.token`. Its `is_error` and `get_error` say what is wrong with it."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_items_in_row=MAX_BRANCHES, verbose_errors=False)
    return LLMatcher(tokens, LLMatcher.grammar_from_lark(lark), log_level=0, limits=limits)


def complaint(lark: str) -> str | None:
    """What llguidance says against it; None: it compiles."""
    matcher = new_matcher(_bytes(), with_tokens(lark, lambda _: None))
    return matcher.get_error() if matcher.is_error() else None


@cache
def _bytes() -> LLTokenizer:
    from llguidance import LLTokenizer

    return LLTokenizer("byte")
