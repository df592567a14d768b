"""The thought: counted by its tags wherever tokens cut them, closed by its budget, and over before a grammar begins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.text.constraints.constraint import Constraint
from runtime.text.constraints.thinking import Thinking, ThoughtTags
from tests.doubles.scripted_constraints import PlannedConstraint

VOCAB, EOS, OPEN, CLOSE, SPILL = 262, 258, 259, 260, 261
SPELLED = {EOS: b"<|eos|>", OPEN: b"<think>", CLOSE: b"</think>", SPILL: b'>{"'}
BRACES = frozenset(b"{[")


def spell(token: int) -> bytes:
    return SPELLED.get(token) or bytes([token])


def tags(*, is_one_token: bool = True) -> ThoughtTags:
    return ThoughtTags(
        open=b"<think>",
        close=b"</think>",
        open_token=OPEN if is_one_token else None,
        closing=(ord("\n"), CLOSE, ord("\n"), ord("\n")) if is_one_token else tuple(b"\n</think>\n\n"),
        spilling=() if is_one_token else (SPILL,),
        token_bytes=spell,
        vocab_size=VOCAB,
        eos_ids=frozenset({EOS}),
    )


def thinking(
    inner: Constraint | None = None, *, budget: int | None = None, in_thought: bool = False, is_one_token: bool = True
) -> Thinking:
    return Thinking(tags(is_one_token=is_one_token), inner, budget=budget, in_thought=in_thought)


def grammar(*places: frozenset[int]) -> PlannedConstraint:
    return PlannedConstraint([*places], vocab_size=VOCAB)


def feed(thought: Thinking, text: bytes | list[int]) -> None:
    for token in text:
        thought.accept(token)


def allowed(thought: Thinking) -> set[int] | None:
    mask = thought.allowed()
    return None if mask is None else set(np.flatnonzero(np.unpackbits(mask, count=VOCAB, bitorder="little")).tolist())


def test_an_answer_without_a_thought_counts_nothing() -> None:
    thought = thinking()
    feed(thought, b"Hello, <think> is a tag")
    assert thought.num_tokens == 0
    assert allowed(thought) is None
    assert thought.forced() == []
    assert not thought.is_complete


@pytest.mark.parametrize("is_one_token", [True, False])
def test_a_thought_counts_from_its_tag_to_its_tag(is_one_token: bool) -> None:
    thought = thinking(is_one_token=is_one_token)
    expected_text = [OPEN, *b"so", CLOSE, *b"\n\nYes"] if is_one_token else list(b"<think>so</think>\n\nYes")
    feed(thought, expected_text)
    assert thought.num_tokens == (4 if is_one_token else len("<think>so</think>"))


def test_white_space_before_the_tag_belongs_to_it() -> None:
    thought = thinking()
    feed(thought, [ord("\n"), OPEN, ord("a")])
    assert thought.num_tokens == 3


def test_what_only_begins_like_a_tag_is_no_thought() -> None:
    thought = thinking(is_one_token=False)
    feed(thought, b"<thi")
    assert thought.num_tokens == 4  # it may still be one
    feed(thought, b"s>")
    assert thought.num_tokens == 0


def test_a_thought_that_the_prompt_opened_counts_from_the_first_token() -> None:
    thought = thinking(in_thought=True)
    feed(thought, [*b"abc", CLOSE, *b"Yes"])
    assert thought.num_tokens == 4


@given(st.lists(st.integers(1, 9), max_size=6))
def test_tags_are_found_wherever_tokens_cut_them(cuts: list[int]) -> None:
    expected_text, pieces, at = b"<think>a</thin</think>b", {}, 0
    for size in itertools.chain(cuts, itertools.repeat(3)):
        if at >= len(expected_text):
            break
        pieces[len(pieces)] = expected_text[at : at + size]
        at += size
    read = tags(is_one_token=False)
    cut = ThoughtTags(read.open, read.close, None, read.closing, (), pieces.__getitem__, VOCAB, read.eos_ids)
    thought = Thinking(cut, None, budget=None, in_thought=False)
    feed(thought, list(pieces))
    end = len(b"<think>a</thin</think>")
    starts = np.cumsum([0, *(len(piece) for piece in pieces.values())])
    assert thought.num_tokens == int(np.searchsorted(starts, end))


# ---- budgets ----


def closed(thought: Thinking) -> bytes:
    forced = thought.forced()
    feed(thought, forced)
    return b"".join(map(spell, forced))


@pytest.mark.parametrize("is_one_token", [True, False])
@pytest.mark.parametrize("budget", [1, 2, 5])
def test_a_budget_closes_the_thought(budget: int, is_one_token: bool) -> None:
    thought = thinking(budget=budget, in_thought=True, is_one_token=is_one_token)
    for _ in range(budget):
        assert thought.forced() == []
        thought.accept(ord("a"))
    assert closed(thought) == b"\n</think>\n\n"
    assert thought.forced() == []
    assert thought.num_tokens == budget + len(tags(is_one_token=is_one_token).closing)
    feed(thought, b"Yes")
    assert thought.num_tokens == budget + len(tags(is_one_token=is_one_token).closing)


def test_no_budget_at_all_leaves_only_the_closing() -> None:
    thought = thinking(budget=0, in_thought=True)
    for token in tags().closing:
        assert allowed(thought) == {token}
        thought.accept(token)
    assert allowed(thought) is None


def test_a_thought_that_the_model_opens_without_a_budget_is_closed_at_once() -> None:
    thought = thinking(budget=0)
    thought.accept(OPEN)
    assert closed(thought) == b"\n</think>\n\n"


def test_a_budget_says_nothing_of_an_answer() -> None:
    thought = thinking(budget=2)
    feed(thought, b"A long answer")
    assert thought.forced() == []


def test_a_thought_that_ends_before_its_budget_is_left_alone() -> None:
    thought = thinking(budget=9, in_thought=True)
    feed(thought, [ord("a"), CLOSE])
    feed(thought, b"Yes, and it goes on")
    assert thought.forced() == []
    assert thought.num_tokens == 2


# ---- grammars ----


def test_a_grammar_begins_after_the_thought() -> None:
    thought = thinking(grammar(BRACES, frozenset(b"x"), frozenset(b"y"), BRACES), in_thought=True)
    assert allowed(thought) == set(range(VOCAB)) - {EOS}
    assert thought.forced() == []
    feed(thought, [*b"{[ what", CLOSE])
    assert allowed(thought) == BRACES
    thought.accept(ord("{"))
    assert thought.forced() == [*b"xy"]
    feed(thought, b"xy")
    assert not thought.is_complete
    thought.accept(ord("["))
    assert thought.is_complete
    assert thought.num_tokens == len("{[ what") + 1


def test_before_a_grammar_a_thought_may_be_opened_but_only_first() -> None:
    thought = thinking(grammar(BRACES, BRACES))
    assert allowed(thought) == BRACES | {OPEN}
    thought.accept(ord("{"))
    assert allowed(thought) == BRACES
    assert thought.num_tokens == 0
    opened = thinking(grammar(BRACES))
    feed(opened, [OPEN, *b"hm", CLOSE])
    assert allowed(opened) == BRACES
    assert opened.num_tokens == 4


def test_a_tag_of_several_tokens_or_no_budget_leaves_the_grammar_alone() -> None:
    assert allowed(thinking(grammar(BRACES), is_one_token=False)) == BRACES
    assert allowed(thinking(grammar(BRACES), budget=0)) == BRACES


def test_the_closing_of_a_budget_is_not_the_grammars() -> None:
    thought = thinking(grammar(BRACES), budget=1, in_thought=True)
    thought.accept(ord("a"))
    assert closed(thought) == b"\n</think>\n\n"
    assert allowed(thought) == BRACES


def test_a_token_that_closes_the_thought_and_goes_on_is_not_allowed() -> None:
    thought = thinking(grammar(BRACES), in_thought=True, is_one_token=False)
    feed(thought, b"if a")
    assert SPILL in (allowed(thought) or ())
    feed(thought, b"</think")
    assert allowed(thought) == set(range(VOCAB)) - {EOS, SPILL}
    feed(thought, b">")
    assert allowed(thought) == BRACES
