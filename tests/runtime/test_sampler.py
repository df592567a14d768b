"""The sampler against the slow reference: who may be chosen, how often, and the same choice at any place in any batch."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runtime.batching.sampler import NothingToChoose, Sampler, truncate
from runtime.batching.sequence import Sequence
from runtime.protocol.request import SamplingParams
from runtime.text.constraints.constraint import ConstraintBroken
from tests.doubles.scripted_constraints import PlannedConstraint
from tests.doubles.sequences import make_sequence
from tests.effort import drawn
from tests.runtime.naive_sampler import distribution

VOCAB, EOS = 97, 3  # no multiple of any vector register's width
EOS_IDS = frozenset({EOS})


def random_logits(seed: int, rows: int = 1, *, vocab: int = VOCAB, spread: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((rows, vocab)) * spread).astype(np.float32)


def sample(logits: np.ndarray, rows: list[Sequence]) -> list[Any]:
    return Sampler(EOS_IDS).sample(logits.copy(), rows)


params_strategy = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 7, 200]),
    top_p=st.sampled_from([0.05, 0.5, 0.93, 1.0]),
    min_p=st.sampled_from([0.0, 0.04, 0.5, 1.0]),
    typical_p=st.sampled_from([0.2, 0.7, 1.0]),
    repetition_penalty=st.sampled_from([0.7, 1.0, 1.5]),
    presence_penalty=st.sampled_from([-1.0, 0.0, 2.0]),
    frequency_penalty=st.sampled_from([-0.5, 0.0, 0.7]),
    logit_bias=st.dictionaries(st.integers(0, VOCAB - 1), st.sampled_from([-100.0, -2.0, 5.0]), max_size=3),
    min_tokens=st.sampled_from([0, 2, 6]),
    stop_token_ids=st.sampled_from([(), (5, 6)]),
    seed=st.integers(0, 2**64 - 1),
)
answers = st.lists(st.integers(0, VOCAB - 1), max_size=5)


@drawn(200)
@given(st.integers(0, 2**31), params_strategy, answers)
def test_only_tokens_of_the_reference_are_chosen(seed: int, requested: SamplingParams, answer: list[int]) -> None:
    logits = random_logits(seed)
    sequence = make_sequence([1, 2, 2, 9], requested, generated=answer)
    allowed = distribution(logits[0], sequence, EOS_IDS)
    for _ in range(5):
        (token,) = sample(logits, [sequence])
        assert allowed.get(token, 0) > 0


@drawn(200)
@given(
    st.integers(0, 2**31),
    st.sampled_from([0, 1, 3, 50, VOCAB]),
    st.sampled_from([0.1, 0.9, 0.999, 1.0]),
    st.sampled_from([0.0, 0.02, 0.6]),
    st.sampled_from([0.3, 0.9, 1.0]),
)
def test_truncation_keeps_what_the_reference_keeps(seed: int, top_k: int, top_p: float, min_p: float, typical_p: float) -> None:
    requested = SamplingParams(temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p)
    logits = random_logits(seed)[0]
    sequence = make_sequence([1], requested)
    expected = distribution(logits, sequence, EOS_IDS)
    kept = truncate(np.exp(logits - logits.max()), sequence.params)
    shares = kept.weights / kept.weights.sum()
    assert dict(zip(kept.ids.tolist(), shares, strict=True)) == pytest.approx(expected, rel=1e-4)


def test_truncation_of_a_flat_and_of_a_peaked_distribution() -> None:
    """The search for likely tokens by falling floors must end in both."""
    flat = np.ones(1000, np.float32)
    peaked = np.zeros(1000, np.float32)
    peaked[7] = 1.0
    nucleus = make_sequence([1], SamplingParams(temperature=1.0, top_p=0.5)).params
    assert len(truncate(flat, nucleus).ids) == 500
    assert truncate(peaked, nucleus).ids.tolist() == [7]
    twenty = make_sequence([1], SamplingParams(temperature=1.0, top_k=20)).params
    assert truncate(flat, twenty).ids.tolist() == list(range(20))
    assert truncate(peaked, twenty).ids.tolist()[0] == 7


@pytest.mark.parametrize(
    "requested",
    [
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.6),
        SamplingParams(temperature=1.0, top_k=8),
        SamplingParams(temperature=1.3, top_p=0.8, min_p=0.02),
        SamplingParams(temperature=1.0, typical_p=0.6),
        SamplingParams(temperature=1.0, logit_bias={4: 3.0}, repetition_penalty=1.4),
    ],
)
@pytest.mark.parametrize("vocab", [40, 700])
def test_draws_are_as_frequent_as_they_should_be(requested: SamplingParams, vocab: int) -> None:
    """Chi-square over the tokens expected at least five times, the rest together; bound: mean + 5 standard deviations."""
    logits, draws = random_logits(5, vocab=vocab, spread=2.0), 4000
    sequence = make_sequence([1, 2, 3], requested)
    expected = distribution(logits[0], sequence, EOS_IDS)
    counts = np.zeros(vocab)
    for _ in range(draws):
        counts[sample(logits, [sequence])[0]] += 1
    common = [token for token, share in expected.items() if share * draws >= 5]
    rest = sum(share for token, share in expected.items() if token not in common)
    cells = [(counts[token], expected[token] * draws) for token in common]
    if rest * draws >= 5:
        cells.append((draws - counts[common].sum(), rest * draws))
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    freedom = max(1, len(cells) - 1)
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5


@drawn(100)
@given(st.integers(0, 2**31), st.lists(params_strategy, min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_a_choice_does_not_depend_on_the_batch(seed: int, requested: list[SamplingParams], order: Random) -> None:
    """The same rows alone, together, and in another order."""
    logits = random_logits(seed, len(requested))

    def rows() -> list[Sequence]:
        return [make_sequence([1, 2, i], params, generated=[i, 5]) for i, params in enumerate(requested)]

    together = sample(logits, rows())
    alone = [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows())]
    places = list(range(len(requested)))
    order.shuffle(places)
    shuffled = rows()
    mixed = sample(logits[places], [shuffled[i] for i in places])
    assert together == alone == [mixed[places.index(i)] for i in range(len(requested))]


def test_the_same_seed_draws_the_same_tokens_and_another_seed_others() -> None:
    logits = random_logits(1, spread=0.5)

    def answer(seed: int) -> list[int]:
        sequence = make_sequence([1], SamplingParams(temperature=1.0, seed=seed))
        return [sample(logits, [sequence])[0] for _ in range(20)]

    assert answer(7) == answer(7)
    assert answer(7) != answer(8)


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, [90, 40, 41]] = 2.5
    assert sample(logits, [make_sequence([1], SamplingParams(temperature=0))]) == [40]


def test_greedy_is_unmoved_by_the_other_settings() -> None:
    logits = random_logits(3)
    requested = SamplingParams(temperature=0, top_k=3, top_p=0.1, min_p=0.9, typical_p=0.1, seed=1)
    assert sample(logits, [make_sequence([1], requested)]) == [int(logits.argmax())]


def test_logit_bias_can_forbid_and_force() -> None:
    logits = random_logits(2)
    best = int(logits.argmax())
    assert sample(logits, [make_sequence([1], SamplingParams(temperature=0, logit_bias={best: -100.0}))]) != [best]
    assert sample(logits, [make_sequence([1], SamplingParams(temperature=0, logit_bias={EOS: 100.0}))]) == [EOS]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_end_waits_for_min_tokens(temperature: float) -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, [EOS, 5]] = 40.0
    requested = SamplingParams(temperature=temperature, min_tokens=2, stop_token_ids=(5,))
    assert sample(logits, [make_sequence([1], requested, generated=[9])])[0] not in (EOS, 5)
    assert sample(logits, [make_sequence([1], requested, generated=[9, 9])])[0] in (EOS, 5)


def test_penalties_count_what_they_should() -> None:
    """Repetition looks at prompt and output; presence and frequency at the output alone."""
    logits = np.full((1, VOCAB), 1.0, np.float32)
    logits[0, [10, 20, 30]] = [3.0, 2.9, 2.8]

    def choice(**requested: Any) -> int:
        return sample(logits, [make_sequence([10], SamplingParams(temperature=0, **requested), generated=[20, 20])])[0]

    assert choice() == 10
    assert choice(repetition_penalty=1.5) == 30
    assert choice(presence_penalty=2.0) == 10
    assert choice(frequency_penalty=-0.1) == 20
    assert choice(presence_penalty=-0.15) == 20


def test_no_rows_give_no_tokens() -> None:
    assert sample(np.zeros((0, VOCAB), np.float32), []) == []


def test_params_of_a_row_are_its_own() -> None:
    logits = np.tile(random_logits(4), (3, 1))
    greedy = make_sequence([1], SamplingParams(temperature=0))
    forbidden = make_sequence([1], SamplingParams(temperature=0, logit_bias={int(logits[0].argmax()): -100.0}))
    tokens = sample(logits, [greedy, forbidden, make_sequence([1], SamplingParams(temperature=1.0, top_k=1))])
    assert tokens[0] == tokens[2] == int(logits[0].argmax())
    assert tokens[1] != tokens[0]


def test_a_row_that_leaves_nothing_to_choose_has_no_token_and_the_others_do() -> None:
    logits = np.zeros((3, 8), np.float32)
    logits[0, 3] = np.nan
    logits[1] = -np.inf
    logits[2, 5] = 1
    rows = [make_sequence([1], SamplingParams(temperature=0)) for _ in range(3)]
    *unchosen, token = Sampler(frozenset()).sample(logits, rows)
    assert [type(choice) for choice in unchosen] == [NothingToChoose, NothingToChoose]
    assert token == 5


# ---- constraints ----


def held_to(allowed: set[int], requested: SamplingParams, *, vocab: int = VOCAB) -> Sequence:
    sequence = make_sequence([1, 2], requested)
    sequence.constraint = PlannedConstraint([frozenset(allowed)], vocab_size=vocab)
    return sequence


@drawn(200)
@given(st.integers(0, 2**31), params_strategy, st.sets(st.integers(0, VOCAB - 1), min_size=1, max_size=VOCAB))
def test_nothing_but_what_is_allowed_is_chosen(seed: int, requested: SamplingParams, allowed: set[int]) -> None:
    logits = random_logits(seed)
    chosen = sample(logits, [held_to(allowed, requested)])[0]
    excluded = {EOS, *requested.stop_token_ids} if requested.min_tokens else set()
    if allowed <= excluded:
        assert isinstance(chosen, NothingToChoose)
    else:
        assert chosen in allowed - excluded


@drawn(100)
@given(st.integers(0, 2**31), params_strategy, st.sets(st.integers(0, VOCAB - 1), min_size=1, max_size=5))
def test_among_the_allowed_the_choice_is_the_references(seed: int, requested: SamplingParams, allowed: set[int]) -> None:
    """As of a model whose other logits are minus infinity."""
    logits = random_logits(seed)
    masked = np.full_like(logits, -np.inf)
    masked[:, [*allowed]] = logits[:, [*allowed]]
    assume(set(allowed) - {EOS, *requested.stop_token_ids})
    plain = make_sequence([1, 2], requested)
    assert sample(logits, [held_to(allowed, requested)]) == sample(masked, [plain])


@pytest.mark.parametrize("truncation", [{}, {"top_k": 50}, {"top_p": 0.99}])
@pytest.mark.parametrize("vocab", [40, 1000])
def test_the_last_of_all_draws_is_allowed_too(truncation: dict[str, Any], vocab: int) -> None:
    """A draw so near to one that rounding could lead past the last token that has any weight."""

    class Last:
        def random(self) -> float:
            return float(np.nextafter(1.0, 0.0))

    for allowed in ({0}, {3, 5}, {0, vocab - 2}):
        sequence = held_to(allowed, SamplingParams(temperature=1.0, **truncation), vocab=vocab)
        sequence.rng = Last()  # type: ignore[assignment]
        assert sample(random_logits(7, vocab=vocab), [sequence])[0] in allowed


def test_only_an_end_token_is_allowed_and_taken() -> None:
    logits = random_logits(11)
    for temperature in (0.0, 2.0):
        assert sample(logits, [held_to({EOS}, SamplingParams(temperature=temperature))]) == [EOS]


def test_a_constraint_that_breaks_is_its_own_rows_matter() -> None:
    class Broken(PlannedConstraint):
        def allowed(self) -> np.ndarray:
            raise ConstraintBroken("too large")

    logits = random_logits(1, 2)
    rows = [make_sequence([1], SamplingParams(temperature=0)) for _ in range(2)]
    rows[0].constraint = Broken([], vocab_size=VOCAB)
    broken, token = Sampler(EOS_IDS).sample(logits.copy(), rows)
    assert isinstance(broken, ConstraintBroken)
    assert token == int(logits[1].argmax())


def test_tokens_beyond_the_mask_are_not_allowed() -> None:
    """A model may have more logits than its constraint knows tokens."""
    logits = np.zeros((1, VOCAB + 30), np.float32)
    logits[0, VOCAB + 20] = 9.0
    assert sample(logits, [held_to({4}, SamplingParams(temperature=0))]) == [4]
