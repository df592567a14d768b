"""A flood beside a chat, on the engine: who waits how many steps, what the flood loses, and that no answer changes."""

from __future__ import annotations

import pytest

from runtime.protocol.errors import OverCapacity
from runtime.protocol.request import TokensPrompt
from tests.doubles.engine_bench import EngineBench, fake_bench
from tests.runtime.two_kernels import two_kernel_bench

LONG = "[[count: 40]]"
WHOLE = " ".join(map(str, range(1, 41)))


def flood(bench: EngineBench, count: int, prompt: str = LONG, *, principal: str = "") -> list[int]:
    """One request's answers."""
    group = len(bench.outcomes) + 1
    return [bench.submit(prompt, principal=principal, group=group) for _ in range(count)]


def steps_until_first_text(bench: EngineBench, number: int) -> int:
    for steps in range(1, 1000):
        bench.step()
        if bench.outcomes[number].pieces:
            return steps
    raise AssertionError("it never begins")


@pytest.mark.parametrize("prefix_cache_bytes", [0, 1 << 20])
def test_a_chat_is_answered_at_once_beside_a_flood_that_loses_nothing(prefix_cache_bytes: int) -> None:
    bench = fake_bench(num_slots=4, prefix_cache_bytes=prefix_cache_bytes)
    answers = flood(bench, 20)
    for _ in range(10):
        bench.step()
    chat = bench.submit("Hello")
    assert steps_until_first_text(bench, chat) <= 2
    bench.run()
    assert [bench.outcomes[each].text for each in answers] == [WHOLE] * 20
    assert bench.engine.stats().preemptions_total == 1


def test_what_gave_way_goes_on_without_computing_anything_again() -> None:
    """As many steps as if it had waited, but for those of the chat."""
    steps = {}
    for prefix_cache_bytes in (0, 1 << 20):
        bench = fake_bench(num_slots=2, prefix_cache_bytes=prefix_cache_bytes)
        flood(bench, 2)
        for _ in range(60):
            bench.step()
        bench.submit("Hi")
        before = bench.engine.stats().steps_total
        bench.run()
        steps[prefix_cache_bytes] = bench.engine.stats().steps_total - before
    assert steps[1 << 20] < len(WHOLE) - 60 + 20 < steps[0]


@pytest.mark.parametrize("prefix_cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("num_steps", [2, 4, 9, 30])  # in the midst of its prompt, and of its answer
def test_what_gave_way_answers_as_if_alone(prefix_cache_bytes: int, num_steps: int) -> None:
    requested = {"max_tokens": 40, "temperature": 0, "logit_bias": {258: -100.0}}
    prompt, other = TokensPrompt(token_ids=list(range(20, 70))), TokensPrompt(token_ids=[1, 2, 3])
    alone = two_kernel_bench(num_slots=1).answer(prompt, **requested)
    bench = two_kernel_bench(num_slots=2, prefix_cache_bytes=prefix_cache_bytes, max_token_gap_s=1e-9, tick=0.001)
    answers = [bench.submit(prompt, group=1, **requested) for _ in range(2)]
    for _ in range(num_steps):
        bench.step()
    bench.submit(other, **requested)
    bench.run()
    assert bench.engine.stats().preemptions_total == 1
    for number in answers:
        assert bench.outcomes[number].token_ids == alone.token_ids
        assert bench.outcomes[number].end.usage.prompt_tokens == 50


def test_what_gave_way_may_be_aborted_while_it_waits() -> None:
    bench = fake_bench(num_slots=2)
    answers = flood(bench, 2, "[[endless]]")
    bench.step()
    chat = bench.submit("Hello")
    bench.step()
    for number in answers:
        bench.engine.remove(number)
    bench.run()
    assert bench.outcomes[chat].text == "You said: Hello"


def test_a_newcomer_without_memory_gets_that_of_the_floods_newest() -> None:
    bench = fake_bench(num_slots=4, kv_budget_bytes=4 * 120, prefix_cache_bytes=0)
    answers = flood(bench, 2)
    for _ in range(40):
        bench.step()
    chat = bench.submit("x" * 20)
    assert steps_until_first_text(bench, chat) <= 3
    bench.run()
    assert [bench.outcomes[each].text for each in answers] == [WHOLE] * 2


def test_a_full_queue_refuses_what_its_largest_sender_sent_last() -> None:
    bench = fake_bench(num_slots=2, max_waiting=3)
    streams = [bench.submit(LONG, principal="flood") for _ in range(5)]
    with pytest.raises(OverCapacity):
        bench.submit(LONG, principal="flood")
    bench.step()
    chat = bench.submit("Hello", principal="chat")
    report = bench.step()
    (failed,) = report.failed
    assert (failed.request, failed.code) == (streams[-1], "queue_full")
    assert failed.retry_after_s
    bench.run()
    assert bench.outcomes[chat].text == "You said: Hello"
    assert [bench.outcomes[each].text for each in streams[:-1]] == [WHOLE] * 4


def test_a_request_that_is_refused_is_refused_whole() -> None:
    bench = fake_bench(num_slots=1, max_waiting=4)
    bench.submit(LONG)
    bench.step()
    answers = flood(bench, 4)
    chat = bench.submit("Hello")
    assert {failed.request for failed in bench.step().failed} == set(answers)
    bench.run()
    assert bench.outcomes[chat].text == "You said: Hello"


def test_whoever_is_refused_hears_of_it_also_when_nothing_else_is_left() -> None:
    bench = fake_bench(num_slots=1, max_waiting=1)
    streams = [bench.submit(LONG, principal="flood") for _ in range(2)]
    chat = bench.submit("Hello", principal="chat")
    for number in (streams[0], chat):
        bench.engine.remove(number)
    assert bench.engine.num_unfinished
    assert [failed.request for failed in bench.step().failed] == [streams[1]]
    assert not bench.engine.num_unfinished


def test_whoever_is_refused_hears_of_it_also_when_the_next_step_raises() -> None:
    bench = fake_bench(num_slots=1, max_waiting=1)
    streams = [bench.submit("[[fail]]", principal="flood") for _ in range(2)]
    chat = bench.submit("Hello", principal="chat")
    while True:
        try:
            bench.engine.step()
        except Exception:
            break
    assert sorted(bench.engine.fail_all()) == sorted([*streams, chat])
    assert not bench.engine.num_unfinished
