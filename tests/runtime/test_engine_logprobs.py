"""Log probabilities are the model's own, for every delivered token and for each place of a prompt, whatever the sampling
parameters.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.batching.sampler import token_logprob
from runtime.engines.fake import EOS, VOCAB_SIZE, ByteTokenizer
from runtime.protocol.events import FinishReason, TokenLogprob
from runtime.protocol.messages import Submit
from runtime.protocol.request import SamplingParams, TokensPrompt
from tests.doubles.engine_bench import EngineBench, Outcome
from tests.doubles.scripted_constraints import planned
from tests.runtime.two_kernels import TwoKernelKV, TwoKernelRunner, two_kernel_bench

PROMPT = TokensPrompt(token_ids=list(range(20)))
LETTERS = tuple(range(97, 123))
SPELL = ByteTokenizer().token_bytes(skip_special_tokens=False)


def logits_after(tokens: list[int], *, prompt_len: int) -> np.ndarray:
    """Of the model behind `two_kernel_bench`: a prompt as a chunk, then token by token."""
    runner = TwoKernelRunner(TwoKernelKV(1, 256))
    logits = runner.prefill(0, np.array(tokens[:prompt_len], np.int32), 0)
    for length in range(prompt_len + 1, len(tokens) + 1):
        logits = runner.decode(np.array(tokens[length - 1 : length], np.int32), np.array([length], np.int32))
    return logits[0]


def expected(prompt: list[int], answer: list[int], num_top: int) -> list[TokenLogprob]:
    return [
        token_logprob(logits_after(prompt + answer[:place], prompt_len=len(prompt)), token, num_top, SPELL)
        for place, token in enumerate(answer)
    ]


@pytest.mark.parametrize("requested", [{"temperature": 0}, {"temperature": 2.0, "seed": 1, "top_k": 3, "logit_bias": {7: 5.0}}])
def test_each_token_has_the_probability_that_the_model_gave_it(requested: dict[str, Any]) -> None:
    bench = two_kernel_bench()
    bench.submit(TokensPrompt(token_ids=[9] * 30), max_tokens=9)
    outcome = bench.answer(PROMPT, max_tokens=6, logprobs=2, stop_token_ids=(EOS,), **requested)
    reported = [token for token in outcome.token_ids if token != EOS]
    assert outcome.logprobs == expected(PROMPT.token_ids, reported, 2)
    assert [each.token_id for each in outcome.logprobs] == reported
    assert outcome.end.cumulative_logprob == pytest.approx(sum(each.logprob for each in outcome.logprobs))


def test_none_requested_none_reported() -> None:
    outcome = two_kernel_bench().answer(PROMPT, max_tokens=6)
    assert outcome.logprobs == []
    assert (outcome.end.logprobs, outcome.end.cumulative_logprob) == (None, None)


def test_the_alternatives_are_the_likeliest_not_the_allowed() -> None:
    outcome = two_kernel_bench().answer(PROMPT, grammar=planned(LETTERS), logprobs=3)
    (reported,) = outcome.logprobs
    logits = logits_after(PROMPT.token_ids, prompt_len=20)
    assert [each.token_id for each in reported.top] == np.argsort(-logits, kind="stable")[:3].tolist()


def test_a_token_that_was_forced_without_the_model_is_certain() -> None:
    outcome = two_kernel_bench().answer(PROMPT, grammar=planned(LETTERS, (7,), (8,), LETTERS), logprobs=1)
    assert [each.token_id for each in outcome.logprobs] == outcome.token_ids
    assert [each.logprob for each in outcome.logprobs[1:3]] == [0.0, 0.0]
    assert outcome.logprobs[3].logprob < 0
    assert [each.token_id for each in outcome.logprobs[1].top] == [7]


def test_special_tokens_are_named_by_their_text() -> None:
    outcome = two_kernel_bench().answer(PROMPT, logit_bias={EOS: 1000.0}, ignore_eos=True, max_tokens=2, logprobs=0, temperature=0)
    assert [each.token for each in outcome.logprobs] == [b"<|eos|>"] * 2


# ---- prompts ----


def scored(bench: EngineBench, prompt: list[int], **requested: Any) -> Outcome:
    return bench.answer(TokensPrompt(token_ids=prompt), **requested)


@given(st.integers(1, 200), st.integers(0, 2), st.sampled_from([1e-9, 0.1]))
def test_each_place_of_a_prompt_has_its_probability(size: int, num_top: int, gap_s: float) -> None:
    """In chunks, beside another row, and after the same prompt was computed without."""
    prompt = [place % 7 for place in range(size)]
    bench = two_kernel_bench(context=256, max_token_gap_s=gap_s, tick=0.001)
    scored(bench, prompt, max_tokens=1)
    beside = bench.submit(PROMPT, max_tokens=200, temperature=0, logit_bias={EOS: -100.0})
    while not bench.outcomes[beside].token_ids:
        bench.step()
    outcome = scored(bench, prompt, max_tokens=3, prompt_logprobs=num_top)
    assert outcome.started is not None
    reported = outcome.started.prompt_logprobs
    assert reported is not None
    assert (len(reported), reported[0]) == (size, None)
    assert outcome.started.cached_tokens == 0
    every = TwoKernelRunner(TwoKernelKV(1, 256)).prefill(0, np.array(prompt, np.int32), 0, num_logits=size)
    for place in range(1, size):
        assert reported[place] == token_logprob(every[place - 1], prompt[place], num_top, SPELL)


def test_a_request_for_the_prompt_alone_ends_with_it() -> None:
    bench = two_kernel_bench(context=256)
    outcome = scored(bench, [1] * 150, max_tokens=0, prompt_logprobs=0)
    assert outcome.started is not None
    assert len(outcome.started.prompt_logprobs or []) == 150
    assert (outcome.end.reason, outcome.token_ids, outcome.text) == (FinishReason.LENGTH, [], "")
    assert outcome.end.usage.completion_tokens == 0
    assert outcome.end.timings.decode_s == 0
    assert scored(bench, [1] * 150, max_tokens=2).end.usage.cached_tokens > 100  # what it computed is there for others


def test_scores_are_returned_only_where_requested() -> None:
    outcome = two_kernel_bench().answer(PROMPT, max_tokens=1, logprobs=1)
    assert outcome.started is not None
    assert outcome.started.prompt_logprobs is None
    assert outcome.started.prompt_token_ids is None


def test_a_prompts_tokens_come_back_if_requested() -> None:
    bench = two_kernel_bench()
    submit = Submit(request=1, prompt=PROMPT, params=SamplingParams(max_tokens=1), return_prompt_token_ids=True)
    bench.engine.add(bench.engine.prepare(submit))
    assert bench.engine.step().started[0].prompt_token_ids == PROMPT.token_ids


def test_a_distribution_over_all_tokens() -> None:
    (reported,) = two_kernel_bench().answer(PROMPT, max_tokens=1, logprobs=VOCAB_SIZE, logit_bias={EOS: -100.0}).logprobs
    assert sum(math.exp(each.logprob) for each in reported.top) == pytest.approx(1)
