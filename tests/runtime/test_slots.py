"""Rows change hands without a token ever standing in a wrong one, and prefixes are reused only where that is allowed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runtime.batching.sequence import Sequence
from runtime.batching.slots import MIN_COMPUTED_TOKENS, Slots, num_rows
from runtime.protocol.request import SamplingParams
from tests.doubles.sequences import make_sequence
from tests.effort import drawn
from tests.runtime.recorded_rows import RecordedRows

GREEDY = SamplingParams(temperature=0)
CONTEXT, NUM_SLOTS = 40, 3


def compute(rows: RecordedRows, sequence: Sequence, num_tokens: int) -> None:
    """What a model's step leaves in the sequence's row."""
    start = sequence.num_computed
    rows.write(sequence.slot, start, sequence.tokens[start : start + num_tokens].tolist())
    sequence.num_computed += num_tokens


class Bench:
    """Slots over recorded rows; sequences run to their end in one call."""

    def __init__(self, *, num_slots: int = NUM_SLOTS, prefix_cache_bytes: int = 1000) -> None:
        self.rows = RecordedRows(num_rows(num_slots), CONTEXT)
        self.slots = Slots(self.rows, num_slots=num_slots, prefix_cache_bytes=prefix_cache_bytes)

    def prefill(self, prompt: list[int], requested: SamplingParams | None = None) -> Sequence:
        sequence = make_sequence(prompt, requested)
        self.slots.place(sequence)
        compute(self.rows, sequence, sequence.prompt_len - sequence.num_computed)
        return sequence

    def decode(self, sequence: Sequence, answer: list[int]) -> None:
        """After the last token of an answer nothing is computed: its KV is never in the row."""
        self.slots.start_decoding(sequence)
        for token in answer:
            sequence.append(token)
        compute(self.rows, sequence, len(answer) - 1)

    def finish(self, prompt: list[int], answer: list[int], requested: SamplingParams | None = None) -> Sequence:
        sequence = self.prefill(prompt, requested)
        self.decode(sequence, answer)
        self.slots.release(sequence, was_decoding=True)
        return sequence


PROMPT, ANSWER = list(range(10)), [20, 21, 22, 23, 24]


def test_a_repeated_prompt_is_reused_but_for_its_end() -> None:
    bench = Bench()
    bench.finish(PROMPT, ANSWER)
    again = bench.prefill(PROMPT)
    assert again.num_cached == len(PROMPT) - MIN_COMPUTED_TOKENS
    assert (bench.slots.queries, bench.slots.hits) == (20, 8)


def test_a_conversation_that_goes_on_reuses_the_answer() -> None:
    bench = Bench()
    bench.finish(PROMPT, ANSWER)
    assert bench.prefill([*PROMPT, *ANSWER, 30, 31, 32]).num_cached == 14  # all of it but the answer's last token


def test_a_repeatable_request_reuses_only_what_was_computed_as_prompt() -> None:
    bench = Bench()
    bench.finish(PROMPT, ANSWER)
    follow_up = [*PROMPT, *ANSWER, 30, 31, 32]
    assert bench.prefill(follow_up, GREEDY).num_cached == 10
    assert bench.prefill(follow_up, SamplingParams(seed=4)).num_cached == 16  # the greedy one computed it all as prompt


def test_what_inexact_tokens_led_to_is_never_called_exact() -> None:
    """A sampled follow-up built on answer tokens; a greedy request may not reuse beyond the first prompt."""
    bench = Bench()
    bench.finish(PROMPT, ANSWER)
    longer = [*PROMPT, *ANSWER, 30, 31, 32]
    bench.finish(longer, [40, 41])
    assert bench.prefill([*longer, 40, 50, 51], GREEDY).num_cached == 10
    assert bench.prefill([*longer, 40, 50, 51]).num_cached == 19


def test_a_running_row_shares_its_prompt() -> None:
    bench = Bench()
    running = bench.prefill(PROMPT)
    bench.decode(running, ANSWER[:1])
    assert bench.prefill([*PROMPT, 30, 31]).num_cached == 10
    assert bench.rows.held[running.slot][:10] == PROMPT


def test_a_repeatable_request_reuses_no_answer_that_is_still_growing() -> None:
    bench = Bench()
    bench.decode(bench.prefill(PROMPT), ANSWER)
    follow_up = [*PROMPT, *ANSWER, 30, 31, 32]
    assert bench.prefill(follow_up, GREEDY).num_cached == 10
    assert bench.prefill([*follow_up[:13], 33, 34, 35]).num_cached == 13


def test_a_short_match_is_not_worth_a_copy() -> None:
    bench = Bench()
    bench.finish(PROMPT, ANSWER)
    assert bench.prefill([0, 1, 2, 30, 31, 32]).num_cached == 0


def test_cached_rows_leave_when_over_the_budget_and_their_pages_with_them() -> None:
    bench = Bench(prefix_cache_bytes=20)
    bench.finish([1] * 8, [2])
    bench.finish([3] * 8, [4])
    bench.finish([5] * 8, [6])
    assert bench.slots.num_cached_tokens == 16
    assert bench.prefill([1] * 8).num_cached == 0
    assert bench.prefill([3] * 8).num_cached == 6


def test_a_full_house_gives_up_what_was_used_least_recently() -> None:
    bench = Bench(num_slots=2)
    bench.finish([1] * 8, [2])
    bench.finish([3] * 8, [4])
    bench.finish([1] * 6 + [2] * 3, [4])
    bench.finish([5] * 8, [4])
    assert bench.prefill([3] * 8).num_cached == 0
    assert bench.prefill([1] * 8).num_cached == 6


def test_unused_memory_is_released() -> None:
    """A row that its sequence left still holds pages: when memory is short, they are freed with the cached rows."""
    bench = Bench(num_slots=2)
    running = bench.prefill([5] * 6)
    bench.finish([1] * 30, [2])
    assert bench.rows.backed_bytes() > 30 + 6
    bench.slots.release_unused_pages()
    assert bench.rows.backed_bytes() == 30 + 6
    bench.slots.shrink(0)
    bench.slots.release_unused_pages()
    assert bench.rows.backed_bytes() == running.num_computed


def test_without_a_cache_budget_nothing_is_kept() -> None:
    bench = Bench(prefix_cache_bytes=0)
    bench.finish(PROMPT, ANSWER)
    assert bench.slots.num_cached_tokens == 0
    assert bench.prefill(PROMPT).num_cached == 0


class SlotsMachine(RuleBasedStateMachine):
    """Any order of place, compute, start_decoding, append and release."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = RecordedRows(num_rows(NUM_SLOTS), CONTEXT)
        self.slots = Slots(self.rows, num_slots=NUM_SLOTS, prefix_cache_bytes=60)
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []

    @precondition(lambda self: len(self.prefilling) + len(self.decoding) < NUM_SLOTS)
    @rule(prompt=st.lists(st.integers(0, 1), min_size=1, max_size=20), repeatable=st.booleans())
    def place(self, prompt: list[int], repeatable: bool) -> None:
        sequence = make_sequence(prompt, GREEDY if repeatable else None)
        self.slots.place(sequence)
        assert sequence.num_cached <= max(0, len(prompt) - MIN_COMPUTED_TOKENS)
        assert not repeatable or sequence.num_exact == sequence.num_computed
        self.prefilling.append(sequence)

    @precondition(lambda self: self.prefilling)
    @rule(data=st.data())
    def prefill(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.prefilling))
        left = sequence.prompt_len - sequence.num_computed
        compute(self.rows, sequence, data.draw(st.integers(1, left)))
        if sequence.num_computed == sequence.prompt_len:
            self.prefilling.remove(sequence)
            self.slots.start_decoding(sequence)
            self.decoding.append(sequence)
            sequence.append(7)

    @precondition(lambda self: self.decoding)
    @rule(token=st.integers(0, 1))
    def decode(self, token: int) -> None:
        """Every decoding row takes a step, as in the engine."""
        for sequence in self.decoding:
            if sequence.num_generated < sequence.params.max_tokens:
                compute(self.rows, sequence, 1)
                sequence.append(token)

    @precondition(lambda self: self.prefilling or self.decoding)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from([*self.prefilling, *self.decoding]))
        was_decoding = sequence in self.decoding
        (self.decoding if was_decoding else self.prefilling).remove(sequence)
        self.slots.release(sequence, was_decoding=was_decoding)
        assert sequence.slot == -1

    @rule(most=st.integers(0, 40))
    def shrink(self, most: int) -> None:
        self.slots.shrink(most)
        assert self.slots.num_cached_tokens <= most

    @invariant()
    def each_row_holds_exactly_its_tokens(self) -> None:
        for sequence in [*self.prefilling, *self.decoding]:
            assert self.rows.held[sequence.slot][: sequence.num_computed] == sequence.computed.tolist()

    @invariant()
    def decoding_rows_have_no_holes(self) -> None:
        assert sorted(s.slot for s in self.decoding) == list(range(len(self.decoding)))
        assert [s.slot for s in self.slots.decoding()] == list(range(len(self.decoding)))
        assert all(s.slot >= len(self.decoding) for s in self.prefilling)

    @invariant()
    def the_cache_keeps_to_its_budget(self) -> None:
        assert self.slots.num_cached_tokens <= 60


SlotsMachine.TestCase.settings = settings(drawn(150), stateful_step_count=40)
TestSlotsMachine = SlotsMachine.TestCase


@given(st.lists(st.integers(0, 1), min_size=6, max_size=20), st.lists(st.integers(0, 1), min_size=6, max_size=20))
def test_the_reused_length_is_the_common_prefix(first: list[int], second: list[int]) -> None:
    bench = Bench()
    bench.finish(first, [9])
    common = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    reused = min(common, len(second) - MIN_COMPUTED_TOKENS)
    assert bench.prefill(second).num_cached == (reused if reused >= 4 else 0)
