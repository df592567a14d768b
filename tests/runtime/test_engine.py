"""The engine on the fake model: what is admitted when, what each request is told, and how each ends. Bytes are tokens here."""

from __future__ import annotations

import pytest
from engine_bench import fake_bench, text
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.fake import ASSISTANT, EOS
from runtime.errors import FailureKind, InvalidRequest, OverCapacity
from runtime.messages import ChatPrompt, FinishReason, TokensPrompt

ENDLESS = "[[endless]]"


def test_an_answer_and_its_usage() -> None:
    outcome = fake_bench().answer("Hello")
    assert outcome.text == "You said: Hello"
    assert outcome.end.reason is FinishReason.STOP
    assert outcome.end.usage.prompt_tokens == len("Hello") + 2
    assert outcome.end.usage.completion_tokens == len("You said: Hello") + 1  # with the end token
    assert outcome.end.usage.cached_tokens == 0
    assert outcome.token_ids == [*b"You said: Hello", EOS]
    assert outcome.end.stop is None
    assert outcome.started is not None
    assert outcome.started.prompt_tokens == 7


def test_each_token_is_told_in_the_step_that_made_it() -> None:
    bench = fake_bench()
    bench.submit("[[count: 3]]")
    pieces = []
    while bench.engine.num_unfinished:
        report = bench.step()
        pieces += [chunk.text for chunk in report.chunks]
    assert pieces == list("1 2 3")


# ---- admission ----


def test_a_newcomer_is_admitted_in_the_next_step_beside_running_rows() -> None:
    bench = fake_bench(num_slots=4)
    first = bench.submit(ENDLESS)
    for _ in range(5):
        bench.step()
    second = bench.submit("Hi")
    report = bench.step()
    assert [started.request for started in report.started] == [second]
    later = [bench.step() for _ in range(4)]
    told = [{chunk.request for chunk in report.chunks} for report in later]
    assert told == [{first, second}] * 4


def test_rows_are_refilled_in_the_step_after_one_ends() -> None:
    bench = fake_bench(num_slots=2)
    for _ in range(5):
        bench.submit("[[reply: ab]]")
    most = 0
    while bench.engine.num_unfinished:
        bench.step()
        most = max(most, bench.engine.stats().num_running)
    assert most == 2
    assert [outcome.text for outcome in bench.outcomes.values()] == ["ab"] * 5


def test_priority_overtakes_the_queue() -> None:
    bench = fake_bench(num_slots=1)
    bench.submit("running")
    bench.step()
    patient, urgent = bench.submit("patient"), bench.submit("urgent", priority=-1)
    ends: list[int] = []
    while bench.engine.num_unfinished:
        ends += [finished.request for finished in bench.step().finished]
    assert ends.index(urgent) < ends.index(patient)


def test_a_full_queue_sheds_and_says_when_to_retry() -> None:
    bench = fake_bench(num_slots=1, max_waiting=2)
    for _ in range(3):
        bench.submit(ENDLESS)
    with pytest.raises(OverCapacity, match="3 requests wait, the limit is 2") as caught:
        bench.submit("one too many")
    assert caught.value.retry_after_s
    assert caught.value.retry_after_s >= 1
    assert caught.value.code == "queue_full"


def test_chunks_of_a_long_prompt_go_between_the_steps_of_running_rows() -> None:
    bench = fake_bench(num_slots=2, tick=0.001, max_token_gap_s=0.0001)
    running = bench.submit(ENDLESS)
    bench.step()
    bench.step()
    long = bench.submit("x" * 400)
    gaps, gap = [], 0
    while bench.outcomes[long].started is None or not bench.outcomes[long].pieces:
        told = {chunk.request for chunk in bench.step().chunks}
        gap = 0 if running in told else gap + 1
        gaps.append(gap)
    assert len(gaps) > 40  # about 400 tokens in chunks of 16, each with a decode step behind it
    assert max(gaps) == 1


def test_a_prompt_that_nobody_waits_for_goes_in_large_chunks() -> None:
    bench = fake_bench(tick=0.001)
    number = bench.submit("x" * 1000)
    steps = 0
    while not bench.outcomes[number].pieces:
        bench.step()
        steps += 1
    assert steps == 4  # 1002 tokens, 256 at a time


# ---- the end ----


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


def test_special_tokens_are_shown_if_asked() -> None:
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


def test_a_stop_string_is_shown_if_asked() -> None:
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
    """UTF-8 is cut between tokens everywhere; no piece holds half a character, except what max_tokens cuts off."""
    bench = fake_bench()
    outcome = bench.answer(TokensPrompt(token_ids=[*f"[[reply: {reply}]]".encode(), ASSISTANT]), stop=stops, max_tokens=max_tokens)
    data = reply.encode()[:max_tokens]
    whole = data.decode(errors="ignore")
    places = [(whole.find(stop), -len(stop)) for stop in stops if stop in whole]
    expected = whole[: min(places)[0]] if places else data.decode(errors="replace")
    assert outcome.text == expected
    for piece in outcome.pieces[:-1]:
        assert "\ufffd" not in piece


# ---- the prefix cache ----


def test_a_conversation_that_goes_on_reuses_its_beginning() -> None:
    bench = fake_bench()
    first = bench.answer("Hello there")
    turns = [
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "Again"},
    ]
    second = bench.answer(ChatPrompt(messages=turns))
    assert second.text == "You said: Again"
    assert second.end.usage.cached_tokens == len("Hello there") + 2 + len(first.text)
    assert second.started is not None
    assert second.started.cached_tokens == second.end.usage.cached_tokens
    stats = bench.engine.stats()
    assert stats.prefix_hits_total == second.end.usage.cached_tokens
    assert stats.prefix_queries_total == first.end.usage.prompt_tokens + second.end.usage.prompt_tokens


def test_requests_of_one_moment_share_what_the_first_has_computed() -> None:
    bench = fake_bench(num_slots=1)
    prefix = "You are a kind assistant. " * 4
    numbers = [bench.submit(text(prefix + end)) for end in ("one", "two")]
    bench.run()
    assert bench.outcomes[numbers[0]].end.usage.cached_tokens == 0
    assert bench.outcomes[numbers[1]].end.usage.cached_tokens == len(prefix)


def test_without_a_cache_nothing_is_reused() -> None:
    bench = fake_bench(prefix_cache_bytes=0)
    bench.answer("Hello there, Hello there")
    assert bench.answer("Hello there, Hello there").end.usage.cached_tokens == 0


def test_kv_use_is_what_running_rows_hold() -> None:
    bench = fake_bench(num_slots=2, context_length=100)
    number = bench.submit(ENDLESS)
    while len(bench.outcomes[number].token_ids) < 50:
        bench.step()
    held = bench.outcomes[number].started
    assert held is not None
    assert bench.engine.stats().kv_usage == pytest.approx((held.prompt_tokens + 49) / 200)
    bench.engine.remove(number)
    assert bench.engine.stats().kv_usage == 0
    assert bench.engine.stats().kv_bytes > 0  # kept for its prefix


# ---- failures ----


def test_after_a_step_that_raised_everything_is_forgotten_and_the_engine_serves() -> None:
    bench = fake_bench()
    others = [bench.submit(ENDLESS), bench.submit("waits")]
    bench.step()
    bad = bench.submit("[[fail]]")
    with pytest.raises(RuntimeError, match="told to fail"):
        bench.run()
    assert sorted(bench.engine.fail_all()) == sorted([*others[:1], bad] if bench.outcomes[others[1]].finished else [*others, bad])
    assert bench.engine.num_unfinished == 0
    assert bench.engine.stats().kv_bytes == 0
    assert bench.answer("Hello").text == "You said: Hello"


def test_nobody_who_ended_in_the_step_that_raised_is_left_waiting() -> None:
    """One prompt's chunk completes, and expires a third; the next prompt's chunk raises, and with it goes the step's report."""
    bench = fake_bench(num_slots=2)
    late = bench.submit("late", deadline_s=1.0)
    bench.clock.now += 2.0
    done = bench.submit("[[reply: a]]", max_tokens=1)
    bad = bench.submit("[[fail]]")
    with pytest.raises(RuntimeError):
        bench.engine.step()
    assert sorted(bench.engine.fail_all()) == sorted([late, done, bad])


def test_what_was_reported_before_is_not_failed_after() -> None:
    bench = fake_bench()
    bench.answer("Hello")
    assert bench.engine.fail_all() == []


def test_a_bad_request_never_gets_in() -> None:
    bench = fake_bench(context_length=20)
    with pytest.raises(InvalidRequest, match="maximum context length is 20"):
        bench.submit("x" * 50)
    assert bench.engine.num_unfinished == 0


