"""Grammars compiled once and shared by the rows that ask for them. Knows no row's state."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from runtime.constraints.grammar import refusal, to_lark
from runtime.constraints.json_schema import MAX_SCHEMAS
from runtime.constraints.lark import with_tokens
from runtime.constraints.matcher import GrammarConstraint, Masks, forced_tokens
from runtime.constraints.vocabulary import Vocabulary
from runtime.request import Grammar, GrammarKind
from runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

CACHED_GRAMMARS = 64
MAX_BRANCHES = 5 * MAX_SCHEMAS  # an optional property makes four


class GrammarCompiler:
    """Thread-safe. eos_ids: tokens that end an answer, at least one. vocab_size: logits per row."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: Iterable[int], vocab_size: int) -> None:
        self._vocabulary = Vocabulary(tokenizer, eos_ids, vocab_size)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="masks")
        self._lock = threading.Lock()
        self._compiled: OrderedDict[tuple[GrammarKind, str], LLMatcher] = OrderedDict()

    def compile(self, grammar: Grammar) -> Callable[[], GrammarConstraint]:
        """Returns what makes a constraint for one row. About a millisecond for a usual schema, nothing for one seen lately.

        Raises InvalidRequest (`unsupported_schema` or `invalid_grammar`) that names `grammar.param`.
        """
        key = (grammar.kind, grammar.source)
        with self._lock:
            matcher = self._compiled.get(key)
        if matcher is None:
            matcher = self._build(grammar)
        with self._lock:
            self._compiled[key] = matcher
            self._compiled.move_to_end(key)
            while len(self._compiled) > CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
        masks = self._masks(grammar)
        return lambda: GrammarConstraint(matcher.deep_copy(), masks, self._background)

    def _build(self, grammar: Grammar) -> LLMatcher:
        from llguidance import LLMatcher, LLParserLimits

        lark = to_lark(grammar)
        if grammar.kind is GrammarKind.CALLS:
            lark = with_tokens(lark, self._vocabulary.special)
        limits = LLParserLimits(max_items_in_row=MAX_BRANCHES, verbose_errors=False)
        matcher = LLMatcher(self._vocabulary.tokens, LLMatcher.grammar_from_lark(lark), log_level=0, limits=limits)
        if matcher.is_error():
            raise refusal(grammar, matcher.get_error())
        if not _can_begin(matcher.deep_copy(), self._vocabulary.tokens):
            raise refusal(grammar, "nothing satisfies it, or it is too large")
        return matcher

    def _masks(self, grammar: Grammar) -> Masks:
        """A negation in a Lark grammar is of bytes, and would let special tokens through."""
        has_negation = grammar.kind is GrammarKind.LARK and "~" in grammar.source
        excluding = self._vocabulary.not_special if has_negation else None
        return Masks(self._vocabulary.tokens, self._vocabulary.vocab_size, excluding)


def _can_begin(matcher: LLMatcher, tokens: LLTokenizer) -> bool:
    """Whether there is a first choice, or none to make: rules that only lead back to themselves have neither."""
    matcher.consume_tokens(forced_tokens(matcher, tokens))
    if matcher.is_stopped():
        return matcher.is_accepting()
    has_choice = any(matcher.compute_bitmask())
    return has_choice and not matcher.is_error()
