"""Constraints in the batch: what they allow is chosen, what they force is appended, and what breaks them ends one row alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.fake import EOS
from runtime.protocol.errors import FailureKind, InvalidRequest
from runtime.protocol.events import FinishReason
from runtime.protocol.request import Grammar, TokensPrompt
from tests.doubles.scripted_constraints import planned
from tests.runtime.two_kernels import TwoKernelRunner, two_kernel_bench

A_TO_Z = tuple(range(97, 123))
PROMPT = TokensPrompt(token_ids=list(range(20)))


def runner_of(bench: Any) -> TwoKernelRunner:
    return bench.engine._runner


def single(text: str) -> list[tuple[int, ...]]:
    return [(byte,) for byte in text.encode()]


def test_an_answer_is_what_its_constraint_allows_and_stops_when_nothing_may_follow() -> None:
    outcome = two_kernel_bench().answer(PROMPT, grammar=planned(A_TO_Z, A_TO_Z, A_TO_Z))
    assert len(outcome.token_ids) == 3
    assert set(outcome.token_ids) <= set(A_TO_Z)
    assert (outcome.end.reason, outcome.end.usage.completion_tokens) == (FinishReason.STOP, 3)


def test_an_end_token_that_is_all_that_is_allowed_ends_it() -> None:
    outcome = two_kernel_bench().answer(PROMPT, grammar=planned(A_TO_Z, A_TO_Z, eos=EOS))
    assert outcome.token_ids[2:] == [EOS]
    assert outcome.end.reason is FinishReason.STOP


def test_forced_tokens_come_in_one_piece_and_take_no_step() -> None:
    bench = two_kernel_bench()
    number = bench.submit(PROMPT, grammar=planned(A_TO_Z, *single("hello there"), A_TO_Z))
    bench.step()
    outcome = bench.outcomes[number]
    assert len(outcome.pieces) == 1
    assert outcome.text[1:] == "hello there"
    bench.step()
    assert outcome.end.usage.completion_tokens == 13
    assert runner_of(bench).prefilled[1:] == [(0, 20, 12)]


def test_an_answer_that_is_complete_with_its_last_token_stops_and_one_that_is_cut_has_length() -> None:
    grammar = planned(A_TO_Z, *single("abc"))
    assert two_kernel_bench().answer(PROMPT, grammar=grammar, max_tokens=4).end.reason is FinishReason.STOP
    cut = two_kernel_bench().answer(PROMPT, grammar=grammar, max_tokens=3)
    assert (cut.end.reason, len(cut.token_ids)) == (FinishReason.LENGTH, 3)


def test_a_stop_string_within_forced_tokens_ends_it_there() -> None:
    outcome = two_kernel_bench().answer(PROMPT, grammar=planned(A_TO_Z, *single("one, two, three"), A_TO_Z), stop=("two",))
    assert outcome.text[1:] == "one, "
    assert outcome.end.stop == "two"
    assert outcome.token_ids[-1] == ord("o")


@pytest.mark.parametrize("breaks_at", [0, 2, 5])
def test_a_constraint_that_breaks_fails_its_row_alone(breaks_at: int) -> None:
    bench = two_kernel_bench()
    broken = bench.submit(PROMPT, grammar=planned(A_TO_Z, *single("abc"), A_TO_Z, A_TO_Z, breaks_at=breaks_at))
    other = bench.submit(PROMPT, grammar=planned(*[A_TO_Z] * 6))
    bench.run()
    failed = bench.outcomes[broken].failed
    assert failed is not None
    assert (failed.kind, failed.code) == (FailureKind.STEP_FAILED, "constraint_broken")
    assert "large" not in failed.message
    assert len(bench.outcomes[other].token_ids) == 6


@pytest.mark.parametrize("requested", [{"min_tokens": 3}, {"ignore_eos": True}])
def test_what_would_move_the_end_is_refused_beside_a_grammar(requested: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="`form`") as caught:
        two_kernel_bench().submit(PROMPT, grammar=planned(A_TO_Z), **requested)
    assert caught.value.field == next(iter(requested))


# ---- jumps ----


def test_few_forced_tokens_wait_for_the_steps_of_many_rows_unless_the_answer_must_be_repeatable() -> None:
    """Drawn without a seed beside four others: three forced tokens are not worth a chunk, six are."""

    def chunks(num_forced: int, **requested: Any) -> list[tuple[int, int, int]]:
        bench = two_kernel_bench(num_slots=5)
        for _ in range(4):
            bench.submit(PROMPT, max_tokens=60, temperature=1.0, logit_bias={EOS: -100.0})
        while len(runner_of(bench).prefilled) < 4:
            bench.step()
        number = bench.submit(PROMPT, grammar=planned(A_TO_Z, *single("x" * num_forced), A_TO_Z), **requested)
        while bench.outcomes[number].finished is None:
            bench.step()
        assert len(bench.outcomes[number].token_ids) == num_forced + 2
        return [chunk for chunk in runner_of(bench).prefilled if chunk[1] == 20]

    assert chunks(3, temperature=1.0) == []
    assert chunks(6, temperature=1.0) == [(4, 20, 7)]
    assert chunks(1, temperature=0) == [(4, 20, 2)]
    assert chunks(1, temperature=1.0, seed=4) == [(4, 20, 2)]


def test_a_row_jumps_once_in_a_step_so_that_others_wait_for_one_chunk() -> None:
    bench = two_kernel_bench(num_slots=2)
    places = [A_TO_Z, *single("ab")] * 6
    jumping = bench.submit(PROMPT, grammar=planned(*places), temperature=0)
    beside = bench.submit(PROMPT, max_tokens=100, temperature=0, logit_bias={EOS: -100.0})
    while not bench.outcomes[beside].token_ids:
        bench.step()
    while bench.outcomes[jumping].finished is None:
        before, reported = len(runner_of(bench).prefilled), len(bench.outcomes[beside].token_ids)
        bench.step()
        assert len(runner_of(bench).prefilled) - before <= 1
        assert len(bench.outcomes[beside].token_ids) == reported + 1


plans = st.lists(st.one_of(st.just((0, 1, 2)), st.integers(0, 40).map(lambda token: (token,))), min_size=1, max_size=30)


@given(plans, st.sampled_from([{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}]))
def test_where_kernels_agree_jumps_change_nothing(places: list[tuple[int, ...]], requested: dict[str, Any]) -> None:
    def answer(grammar: Grammar) -> list[int]:
        bench = two_kernel_bench(agree=True)
        bench.submit(PROMPT, max_tokens=60, temperature=0)  # beside another
        return bench.answer(PROMPT, grammar=grammar, **requested).token_ids

    # Without announcements a forced token is drawn as well, which takes a number from the generator: greedy answers alone compare.
    reported = answer(planned(*places))
    assert len(reported) == len(places)
    assert all(token in place for token, place in zip(reported, places, strict=True))
    if not requested.get("seed"):
        assert reported == answer(planned(*places, announces=False))


def test_preemption_computes_again_what_was_computed_together() -> None:
    """Too little memory for all: who is sent back answers as if it had run alone, jumps, wrong drafts and all."""
    plan = planned(*([(0, 1), (0, 1), (5,), (6,)] * 10))
    prediction = bytes([0, 1, 5, 6] * 10).decode()
    prompts = [list(range(first, first + 20)) for first in range(6)]

    def send(bench: Any, prompt: list[int]) -> int:
        return bench.submit(TokensPrompt(token_ids=prompt), grammar=plan, prediction=prediction, temperature=0)

    bench = two_kernel_bench(num_slots=4, kv_budget_bytes=4 * 120)
    numbers = [send(bench, prompt) for prompt in prompts]
    bench.run()
    assert bench.engine.stats().preemptions_total > 2
    for number, prompt in zip(numbers, prompts, strict=True):
        alone = two_kernel_bench()
        send(alone, prompt)
        alone.run()
        assert bench.outcomes[number].token_ids == alone.outcomes[1].token_ids
        assert bench.outcomes[number].end.usage == alone.outcomes[1].end.usage
