"""The rule of correctness: a request's answer does not depend on who else was there, or on what was cached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.protocol.errors import OverCapacity
from runtime.protocol.request import Grammar, TokensPrompt
from tests.doubles.scripted_constraints import planned
from tests.effort import drawn
from tests.runtime.two_kernels import two_kernel_bench


@dataclass(frozen=True)
class Request:
    """arrives, aborts: in which step; aborts None: never. seed None: drawn anew each time, so its answer is not compared."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    seed: int | None
    arrives: int
    aborts: int | None
    priority: int
    grammar: Grammar | None = None
    prediction: str | None = None
    principal: str = ""
    group: int | None = None

    @property
    def is_repeatable(self) -> bool:
        return self.temperature == 0 or self.seed is not None

    @property
    def params(self) -> dict[str, Any]:
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "grammar": self.grammar,
            "prediction": self.prediction,
        }


SHARED = tuple(range(40))

prompts = st.one_of(
    st.sampled_from([17, 33, 49]).map(lambda size: tuple(range(50, 50 + size))),  # one more than whole chunks
    st.lists(st.integers(0, 2), min_size=1, max_size=70).map(tuple),
    st.tuples(st.integers(4, 40), st.lists(st.integers(0, 2), max_size=20)).map(lambda cut: SHARED[: cut[0]] + tuple(cut[1])),
)
# Few tokens to choose from, so that predictions are right now and then; runs of forced tokens between them.
places = st.one_of(st.just((0, 1)), st.just((0, 1, 2)), st.integers(0, 40).map(lambda token: (token,)))
grammars = st.lists(places, min_size=1, max_size=24).map(lambda chosen: planned(*chosen))
predictions = st.lists(st.integers(0, 2), min_size=1, max_size=40).map(lambda ids: bytes(ids).decode())

requests = st.builds(
    Request,
    prompt=prompts,
    max_tokens=st.integers(1, 25),
    temperature=st.sampled_from([0.0, 0.0, 1.0]),
    seed=st.sampled_from([None, 1, 2]),
    arrives=st.integers(0, 30),
    aborts=st.none() | st.none() | st.integers(0, 60),
    priority=st.sampled_from([0, 0, 1]),
    grammar=st.none() | grammars,
    prediction=st.none() | predictions,
    principal=st.sampled_from(["", "", "other"]),
    group=st.none() | st.just(1),
)


follow_ups = st.tuples(st.integers(0, 7), st.integers(1, 25), st.lists(st.integers(0, 2), min_size=1, max_size=6), requests)


def with_follow_ups(mix: list[Request], requested: list[tuple[int, int, list[int], Request]]) -> list[Request]:
    """Conversations that go on: prompts made of an earlier one, some of its answer, and something new."""
    longer = list(mix)
    for number, cut, expected_text, request in requested:
        first = mix[number % len(mix)]
        answer = alone(first)[0] if first.is_repeatable else ()
        longer.append(replace(request, prompt=(*first.prompt, *answer[:cut], *expected_text)))
    return longer


@cache
def alone(request: Request) -> tuple[tuple[int, ...], str, str]:
    outcome = two_kernel_bench(num_slots=1).answer(TokensPrompt(token_ids=list(request.prompt)), **request.params)
    return tuple(outcome.token_ids), outcome.text, outcome.end.reason


@drawn(150)
@given(
    st.lists(requests, min_size=1, max_size=6),
    st.lists(follow_ups, max_size=4),
    st.integers(1, 4),
    st.sampled_from([0, 100, 400, 1 << 20]),
    st.sampled_from([160, 400, 1 << 20]),
)
@example([Request(SHARED, 20, 0.0, None, i, None, 0) for i in range(4)], [], 3, 400, 300)
def test_each_answer_is_the_one_it_gets_alone(
    mix: list[Request],
    requested: list[tuple[int, int, list[int], Request]],
    num_slots: int,
    prefix_cache_bytes: int,
    kv_budget_bytes: int,
) -> None:
    """Random mixes with shared prefixes, chunked prompts, aborts, priorities, principals, a cache budget, too little KV memory."""
    mix = with_follow_ups(mix, requested)
    bench = two_kernel_bench(
        num_slots=num_slots,
        prefix_cache_bytes=prefix_cache_bytes,
        kv_budget_bytes=kv_budget_bytes,
        max_token_gap_s=1e-9,  # so that prompts beside running rows go in the smallest chunks
        tick=0.001,
    )
    numbers: dict[int, Request] = {}
    aborted: set[int] = set()
    for step in range(2000):
        for request in mix:
            if request.arrives == step:
                prompt = TokensPrompt(token_ids=list(request.prompt))
                whose = {"priority": request.priority, "principal": request.principal, "group": request.group}
                numbers[bench.submit(prompt, **whose, **request.params)] = request
        for number, request in numbers.items():
            if request.aborts == step:
                bench.engine.remove(number)
                aborted.add(number)
        if bench.engine.num_unfinished:
            bench.step()
        elif len(numbers) == len(mix):
            break
    for number, request in numbers.items():
        outcome = bench.outcomes[number]
        if number in aborted and outcome.finished is None:
            continue
        assert outcome.end.usage.prompt_tokens == len(request.prompt)
        assert outcome.end.usage.completion_tokens == len(outcome.token_ids) <= request.max_tokens
        if request.is_repeatable:
            assert (tuple(outcome.token_ids), outcome.text, outcome.end.reason) == alone(request)


def test_too_little_memory_makes_sequences_wait_again_and_changes_no_answer() -> None:
    bench = two_kernel_bench(num_slots=4, kv_budget_bytes=4 * 120)
    requested = [Request(tuple(range(i, i + 20)), 60, 0.0, None, 0, None, 0) for i in range(5)]
    numbers = [
        bench.submit(TokensPrompt(token_ids=list(r.prompt)), max_tokens=60, temperature=0, logit_bias={258: -100.0})
        for r in requested
    ]
    bench.run()
    assert bench.engine.stats().preemptions_total > 0
    for number, request in zip(numbers, requested, strict=True):
        fresh = two_kernel_bench().answer(
            TokensPrompt(token_ids=list(request.prompt)), max_tokens=60, temperature=0, logit_bias={258: -100.0}
        )
        outcome = bench.outcomes[number]
        assert (outcome.token_ids, outcome.text) == (fresh.token_ids, fresh.text)
        assert outcome.end.usage == fresh.end.usage


def test_memory_that_earlier_answers_touched_does_not_send_later_ones_back() -> None:
    """Only what sequences hold counts against the budget, not what their rows held before."""
    bench = two_kernel_bench(num_slots=2, kv_budget_bytes=4 * 100, prefix_cache_bytes=0)
    bench.answer(TokensPrompt(token_ids=[1] * 60), max_tokens=39, temperature=0, logit_bias={258: -100.0})
    for start in (2, 12):
        bench.submit(TokensPrompt(token_ids=list(range(start, start + 9))), max_tokens=20, temperature=0)
    bench.run()
    assert bench.engine.stats().preemptions_total == 0


def test_a_full_queue_changes_no_answer() -> None:
    bench = two_kernel_bench(num_slots=1, max_waiting=1)
    request = Request((5, 6, 7), 9, 0.0, None, 0, None, 0)
    prompt = TokensPrompt(token_ids=[5, 6, 7])
    accepted = [bench.submit(prompt, max_tokens=9, temperature=0) for _ in range(2)]
    with pytest.raises(OverCapacity):
        bench.submit(prompt)
    bench.run()
    assert {tuple(bench.outcomes[number].token_ids) for number in accepted} == {alone(request)[0]}
