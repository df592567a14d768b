"""Compiles grammars once and shares them among rows. Knows no row's state."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.protocol.request import Grammar, GrammarKind
from runtime.text.constraints.grammar import refusal, to_lark
from runtime.text.constraints.lark import new_matcher, with_tokens
from runtime.text.constraints.matcher import GrammarConstraint, Masks, Vocabulary, forced_tokens
from runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

CACHED_GRAMMARS = 64
Trial = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class _Complaint:
    """The cached refusal of a grammar, so that the same one is refused again without another attempt."""

    text: str


class GrammarCompiler:
    """Thread-safe. eos_ids: tokens that end an answer, at least one. vocab_size: logits per row.

    trial: returns the fault of a Lark grammar (None: it has none) before it is compiled here, where an endless compilation could
    not be stopped. None: every grammar is compiled at once.
    """

    def __init__(self, tokenizer: Tokenizer, eos_ids: Iterable[int], vocab_size: int, *, trial: Trial | None = None) -> None:
        self._vocabulary = Vocabulary(tokenizer, eos_ids, vocab_size)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="masks")
        self._lock = threading.Lock()
        self._trial = trial
        self._compiled: OrderedDict[tuple[GrammarKind, str], LLMatcher | _Complaint] = OrderedDict()

    def compile(self, grammar: Grammar) -> Callable[[], GrammarConstraint]:
        """Returns what makes a constraint for one row. About a millisecond for a usual schema, nothing for one seen lately.

        Raises InvalidRequest (`unsupported_schema` or `invalid_grammar`) that names `grammar.field`.
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
        if isinstance(matcher, _Complaint):
            raise refusal(grammar, matcher.text)
        masks = self._masks(grammar)
        return lambda: GrammarConstraint(matcher.deep_copy(), masks, self._background, grammar.field)

    def _build(self, grammar: Grammar) -> LLMatcher | _Complaint:
        lark = to_lark(grammar)
        if self._trial is not None and (complaint := self._trial(lark)) is not None:
            return _Complaint(complaint)
        if grammar.kind is GrammarKind.CALLS:
            lark = with_tokens(lark, self._vocabulary.special)
        matcher = new_matcher(self._vocabulary.tokens, lark)
        if matcher.is_error():
            return _Complaint(matcher.get_error())
        if not _can_begin(matcher.deep_copy(), self._vocabulary.tokens):
            return _Complaint("nothing satisfies it, or it is too large")
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
