"""Predictions change the speed and nothing else: every token is the one that an ordinary step would have chosen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.fake import EOS
from runtime.protocol.request import TokensPrompt
from tests.doubles.engine_bench import Outcome, fake_bench
from tests.doubles.scripted_constraints import planned
from tests.runtime.two_kernels import two_kernel_bench

PROMPT = TokensPrompt(token_ids=list(range(20)))
SENTENCE = "The quick brown fox jumps over the lazy dog, and then once more over the sleeping cat."
REPLY = f"[[reply: {SENTENCE}]]"


def steps_of(prompt: str, **requested: Any) -> tuple[Outcome, int]:
    bench = fake_bench()
    outcome = bench.answer(prompt, **requested)
    return outcome, bench.engine.stats().steps_total


def test_a_right_prediction_takes_few_steps_and_is_counted() -> None:
    outcome, steps = steps_of(REPLY, prediction=SENTENCE, temperature=0)
    plain, plain_steps = steps_of(REPLY, temperature=0)
    assert (outcome.text, outcome.token_ids, outcome.end.reason) == (plain.text, plain.token_ids, plain.end.reason)
    assert plain_steps > 80
    assert steps < 10
    usage = outcome.end.usage
    assert usage.accepted_prediction_tokens > 70
    assert usage.rejected_prediction_tokens == 0
    assert plain.end.usage.accepted_prediction_tokens == 0


def test_a_prediction_that_is_wrong_everywhere_changes_nothing_and_is_given_up() -> None:
    outcome, steps = steps_of(REPLY, prediction="#" * 200, temperature=0)
    plain, plain_steps = steps_of(REPLY, temperature=0)
    assert (outcome.text, outcome.token_ids) == (plain.text, plain.token_ids)
    assert steps == plain_steps
    assert outcome.end.usage.accepted_prediction_tokens == 0
    assert outcome.end.usage.rejected_prediction_tokens <= 16


def test_after_an_edit_the_prediction_is_found_again() -> None:
    outcome, steps = steps_of(REPLY, prediction=SENTENCE.replace("brown fox", "red old and tired fox"), temperature=0)
    assert outcome.text == SENTENCE
    assert steps < 30
    assert outcome.end.usage.accepted_prediction_tokens > 50


@pytest.mark.parametrize("max_tokens", [1, 2, 5, 9, 10, 11])
def test_max_tokens_holds(max_tokens: int) -> None:
    outcome, _ = steps_of(REPLY, prediction=SENTENCE, max_tokens=max_tokens)
    assert outcome.text == SENTENCE[:max_tokens]
    assert outcome.end.usage.completion_tokens == max_tokens


def test_the_context_holds() -> None:
    bench = fake_bench(context_length=120)
    outcome = bench.answer("[[endless]]", prediction="x" * 300, temperature=0)
    usage = outcome.end.usage
    assert usage.prompt_tokens + usage.completion_tokens == 120
    assert outcome.text == "x" * usage.completion_tokens


def test_a_stop_string_within_a_draft_ends_the_answer() -> None:
    outcome, _ = steps_of(REPLY, prediction=SENTENCE, stop=("jumps",))
    assert (outcome.text, outcome.end.stop) == ("The quick brown fox ", "jumps")
    assert len(outcome.token_ids) == len("The quick brown fox jumps")


def test_what_a_drafted_answer_leaves_behind_can_be_continued() -> None:
    bench = fake_bench()
    bench.answer(REPLY, prediction=SENTENCE + " and more that never came", temperature=1.0)
    again = bench.answer(REPLY, temperature=0)
    assert again.text == SENTENCE


def test_a_wrong_draft_leaves_no_trace_although_kernels_differ() -> None:
    def answer(prediction: str | None) -> list[int]:
        bench = two_kernel_bench()
        return bench.answer(PROMPT, temperature=0, max_tokens=60, logit_bias={EOS: -1000.0}, prediction=prediction).token_ids

    plain = answer(None)
    never = min(set(range(128)) - set(plain))
    assert answer(chr(never) * 60) == plain


@pytest.mark.parametrize(("behind", "is_taken"), [(0.2, True), (0.3, False)])
def test_what_is_drafted_stands_where_kernels_could_not_distinguish_it_from_the_best(behind: float, is_taken: bool) -> None:
    bench = fake_bench()
    outcome = bench.answer(REPLY, prediction="TZe quick", temperature=0, logit_bias={ord("Z"): 50.0 - behind}, max_tokens=3)
    assert (outcome.text == "TZe") is is_taken


moods = st.sampled_from([{"temperature": 0.0}, {"temperature": 1.0, "seed": 3}, {"temperature": 0.7, "seed": 9, "top_k": 2}])
edits = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2), st.booleans()), max_size=4)
places = st.one_of(st.just((0, 1)), st.just((0, 1, 2)), st.integers(0, 5).map(lambda token: (token,)))


@given(st.lists(places, min_size=40, max_size=40), edits, moods, st.sampled_from([None, 0, 3]), st.sampled_from([0.0, 1.5]))
def test_where_kernels_agree_a_draft_changes_nothing(
    plan: list[tuple[int, ...]],
    changed: list[tuple[int, int, bool]],
    requested: dict[str, Any],
    logprobs: int | None,
    presence_penalty: float,
) -> None:
    """The prediction is the answer itself, with tokens replaced or left out; beside another row."""

    def answer(prediction: str | None) -> Outcome:
        bench = two_kernel_bench(agree=True)
        bench.submit(PROMPT, max_tokens=100, temperature=0, logit_bias={EOS: -1000.0})
        params = {"logprobs": logprobs, "presence_penalty": presence_penalty, "prediction": prediction, **requested}
        return bench.answer(PROMPT, grammar=planned(*plan), **params)

    plain = answer(None)
    predicted = list(plain.token_ids)
    for place, token, is_dropped in changed:
        if place < len(predicted):
            predicted[place : place + 1] = [] if is_dropped else [token]
    drafted = answer(bytes(predicted).decode())
    assert drafted.token_ids == plain.token_ids
    assert drafted.text == plain.text
    assert [each.logprob for each in drafted.logprobs] == [each.logprob for each in plain.logprobs]
    assert len(plain.logprobs) == (0 if logprobs is None else len(plain.token_ids))
