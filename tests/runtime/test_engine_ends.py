"""How a request ends, and its last event: lengths, end tokens, stop strings, deadlines, aborts. Bytes are tokens here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.fake import ASSISTANT, EOS
from runtime.protocol.errors import FailureKind
from runtime.protocol.events import FinishReason
from runtime.protocol.request import TokensPrompt
from tests.doubles.engine_bench import fake_bench

ENDLESS = "[[endless]]"


def test_an_abort_takes_effect_before_the_next_step() -> None:
    bench = fake_bench()
    gone, stays = bench.submit(ENDLESS), bench.submit(ENDLESS)
    for _ in range(5):
        bench.step()
    bench.engine.remove(gone)
    assert bench.engine.num_unfinished == 1
    assert {chunk.request for chunk in bench.step().chunks} == {stays}


@pytest.mark.parametrize("steps", range(4))
def test_an_abort_in_any_state_forgets_the_request(steps: int) -> None:
    bench = fake_bench(num_slots=1, tick=0.001)
    number, waiting = bench.submit("x" * 600), bench.submit("y")
    for _ in range(steps):
        bench.step()
    bench.engine.remove(waiting)
    bench.engine.remove(number)
    assert bench.engine.num_unfinished == 0
    assert bench.engine.stats().num_running == bench.engine.stats().num_waiting == 0


def test_an_abort_of_what_just_ended_does_nothing() -> None:
    bench = fake_bench()
    bench.answer("Hello")
    bench.engine.remove(1)
    bench.engine.remove(999)


@pytest.mark.parametrize("waiting", [True, False])
def test_a_deadline_ends_a_request_wherever_it_is(waiting: bool) -> None:
    bench = fake_bench(num_slots=1)
    if waiting:
        bench.submit(ENDLESS)
    number = bench.submit(ENDLESS, deadline_s=5.0)
    bench.step()
    bench.step()
    bench.clock.now += 4.9
    bench.step()
    assert bench.outcomes[number].failed is None
    bench.clock.now += 0.1
    bench.step()
    failed = bench.outcomes[number].failed
    assert failed is not None
    assert (failed.kind, failed.code) == (FailureKind.NOT_READY, "deadline_exceeded")
    assert "5.0 s" in failed.message
    assert bench.engine.num_unfinished == int(waiting)


def test_times_are_the_clocks() -> None:
    bench = fake_bench(num_slots=1)
    first = bench.submit("[[reply: a]]")
    second = bench.submit("[[reply: abc]]")
    while bench.engine.num_unfinished:
        bench.clock.now += 1.0
        bench.step()
    assert bench.outcomes[first].end.timings.queue_s == 1.0
    timings = bench.outcomes[second].end.timings
    assert (timings.queue_s, timings.prefill_s, timings.decode_s) == (3.0, 0.0, 3.0)


def test_max_tokens_ends_an_answer() -> None:
    outcome = fake_bench().answer(ENDLESS, max_tokens=7)
    assert (outcome.text, outcome.end.reason, outcome.end.usage.completion_tokens) == ("x" * 7, FinishReason.LENGTH, 7)


def test_the_context_ends_an_answer() -> None:
    outcome = fake_bench(context_length=50).answer(ENDLESS)
    usage = outcome.end.usage
    assert outcome.end.reason is FinishReason.LENGTH
    assert usage.prompt_tokens + usage.completion_tokens == 50


def test_one_token_is_an_answer() -> None:
    outcome = fake_bench().answer("[[reply: abc]]", max_tokens=1)
    assert (outcome.text, outcome.end.reason) == ("a", FinishReason.LENGTH)


def test_ignore_eos_goes_on() -> None:
    outcome = fake_bench().answer("[[reply: ab]]", ignore_eos=True, max_tokens=5)
    assert outcome.token_ids == [*b"ab", EOS, EOS, EOS]
    assert (outcome.text, outcome.end.reason) == ("ab", FinishReason.LENGTH)


def test_special_tokens_are_shown_if_requested() -> None:
    outcome = fake_bench().answer("[[reply: ab]]", ignore_eos=True, max_tokens=3, skip_special_tokens=False)
    assert outcome.text == "ab<|eos|>"


def test_min_tokens_keeps_the_end_away() -> None:
    outcome = fake_bench().answer("[[reply: ab]]", min_tokens=6, temperature=0, max_tokens=20)
    assert EOS not in outcome.token_ids[:6]
    assert outcome.end.usage.completion_tokens > 6


def test_a_token_named_as_stop_ends_the_answer_and_is_named() -> None:
    outcome = fake_bench().answer("[[count: 9]]", stop_token_ids=(ord("3"),))
    assert (outcome.text, outcome.end.reason, outcome.end.stop) == ("1 2 ", FinishReason.STOP, ord("3"))
    assert outcome.token_ids[-1] == ord("3")


# ---- stop strings ----


def test_a_stop_string_across_tokens_is_never_shown() -> None:
    outcome = fake_bench().answer("[[count: 20]]", stop=("7 8",))
    assert (outcome.text, outcome.end.reason, outcome.end.stop) == ("1 2 3 4 5 6 ", FinishReason.STOP, "7 8")
    assert outcome.token_ids == [*b"1 2 3 4 5 6 7 8"]


def test_a_stop_string_is_shown_if_requested() -> None:
    assert fake_bench().answer("[[count: 20]]", stop=("3 4",), include_stop_str_in_output=True).text == "1 2 3 4"


def test_the_beginning_of_a_stop_string_comes_out_at_the_end() -> None:
    outcome = fake_bench().answer("[[reply: abc]]", stop=("bcd",))
    assert (outcome.text, outcome.end.stop) == ("abc", None)
    assert fake_bench().answer("[[reply: abcx]]", stop=("bcd",), max_tokens=3).text == "abc"


@pytest.mark.parametrize("max_tokens", [100, 3])
def test_a_shorter_stop_string_inside_what_was_held_back_is_named(max_tokens: int) -> None:
    """Held back because `bcd` could have followed, found in the end by `bc`."""
    outcome = fake_bench().answer("[[reply: abc]]", stop=("bcd", "bc"), max_tokens=max_tokens)
    assert (outcome.text, outcome.end.reason, outcome.end.stop) == ("a", FinishReason.STOP, "bc")


def test_stop_strings_wait_for_min_tokens() -> None:
    outcome = fake_bench().answer("[[reply: aXbXc]]", stop=("X",), min_tokens=3)
    assert outcome.text == "aXb"


replies = st.text("ab\u20ac\U0001f642 ", min_size=1, max_size=12)


@given(replies, st.lists(st.text("ab\u20ac ", min_size=1, max_size=3), max_size=2).map(tuple), st.integers(1, 30))
def test_text_is_whole_characters_up_to_the_stop_string(reply: str, stops: tuple[str, ...], max_tokens: int) -> None:
    """UTF-8 is cut between tokens everywhere; no piece holds half a character, also where max_tokens cuts."""
    bench = fake_bench()
    outcome = bench.answer(TokensPrompt(token_ids=[*f"[[reply: {reply}]]".encode(), ASSISTANT]), stop=stops, max_tokens=max_tokens)
    data = reply.encode()[:max_tokens]
    whole = data.decode(errors="ignore")
    places = [(whole.find(stop), -len(stop)) for stop in stops if stop in whole]
    expected = whole[: min(places)[0]] if places else whole
    assert outcome.text == expected
    for piece in outcome.pieces:
        assert "\ufffd" not in piece
