"""The engine on the fake model: what is admitted when, what is reused, what a failed step costs. Bytes are tokens here."""

from __future__ import annotations

import pytest

from runtime.engines.fake import EOS
from runtime.protocol.errors import InvalidRequest, OverCapacity
from runtime.protocol.events import FinishReason
from runtime.protocol.request import ChatPrompt
from tests.doubles.engine_bench import fake_bench, text

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


def test_each_token_is_returned_in_the_step_that_made_it() -> None:
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
    reported = [{chunk.request for chunk in report.chunks} for report in later]
    assert reported == [{first, second}] * 4


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
    with pytest.raises(OverCapacity, match="at most 2 answers may wait") as caught:
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
        reported = {chunk.request for chunk in bench.step().chunks}
        gap = 0 if running in reported else gap + 1
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


# ---- the prefix cache ----


def test_prompts_that_begin_alike_and_arrive_together_compute_their_beginning_once() -> None:
    bench = fake_bench(num_slots=4, tick=0.001)
    numbers = [bench.submit("y" * 100 + f" and then {i}") for i in range(4)]
    while not all(bench.outcomes[number].pieces for number in numbers):
        bench.step()
    cached = [bench.outcomes[number].started.cached_tokens for number in numbers]
    assert cached[0] == 0
    assert all(count >= 100 for count in cached[1:])


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


def test_requests_with_the_same_beginning_compute_it_once() -> None:
    bench = fake_bench(num_slots=1)
    prefix = "You are a kind assistant. " * 4
    numbers = [bench.submit(text(prefix + end), max_tokens=2) for end in ("one", "two")]
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
    with pytest.raises(RuntimeError, match="failed as directed"):
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
