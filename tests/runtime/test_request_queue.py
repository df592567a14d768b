"""The queue that every engine has: limits, deadlines, aborts, failures, what is reported and counted. Without a model."""

from __future__ import annotations

import pytest

from model_registry.records import Capability
from runtime.batching.queue import RequestQueue
from runtime.batching.sequence import Sequence, SequenceStatus
from runtime.protocol.errors import FailureKind, OverCapacity
from runtime.protocol.events import Finished, FinishReason, Timings, Usage
from runtime.protocol.messages import ModelInfo
from tests.doubles.engine_bench import Clock
from tests.doubles.sequences import make_sequence


def info(num_slots: int) -> ModelInfo:
    return ModelInfo(
        engine="none",
        provider="none",
        architecture="none",
        context_length=100,
        vocab_size=1,
        num_slots=num_slots,
        threads=1,
        kv_bytes_per_token=10,
        capabilities=frozenset({Capability.COMPLETION}),
        load_s=0.0,
        resident_bytes=0,
        pid=0,
    )


def finished(request: int) -> Finished:
    return Finished(
        request=request,
        reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=1, completion_tokens=1),
        timings=Timings(queue_s=0, prefill_s=0, decode_s=0),
    )


class Bench:
    """A queue, and for each sequence that its engine had to release, where it was then."""

    def __init__(self, *, num_slots: int = 2, max_waiting: int = 2, kv_budget_bytes: int = 1 << 30) -> None:
        self.clock = Clock()
        self.released: list[tuple[int, SequenceStatus]] = []
        self.queue = RequestQueue(
            info(num_slots),
            max_waiting=max_waiting,
            kv_budget_bytes=kv_budget_bytes,
            release=lambda sequence: self.released.append((sequence.request, sequence.status)),
            resident_bytes=lambda: 7,
            clock=self.clock,
        )

    def add(self, *, principal: str = "", deadline_at: float | None = None) -> Sequence:
        sequence = make_sequence(principal=principal)
        sequence.deadline_at = deadline_at
        self.queue.add(sequence)
        return sequence

    def admit(self) -> Sequence:
        sequence = self.queue.scheduler.first_waiting()
        assert sequence is not None
        self.queue.admit(sequence)
        return sequence


# ---- limits ----


def test_a_newcomer_that_finds_the_queue_full_is_refused_and_nothing_of_it_stays() -> None:
    bench = Bench(num_slots=1, max_waiting=1)
    held = [bench.add(), bench.add()]
    with pytest.raises(OverCapacity) as refused:
        bench.add()
    assert (refused.value.code, refused.value.retry_after_s) == ("queue_full", 1.0)
    assert len(bench.queue) == len(held)
    assert bench.released == []


def test_who_has_the_most_in_a_full_queue_is_failed_for_who_has_none() -> None:
    bench = Bench(num_slots=1, max_waiting=2)
    flood = [bench.add(principal="flood") for _ in range(3)]
    chat = bench.add(principal="chat")
    assert chat.request in bench.queue
    assert bench.queue.num_unfinished == 4, "the failure is still to be reported"
    (failed,) = bench.queue.begin_step().failed
    assert (failed.request, failed.kind, failed.code) == (flood[-1].request, FailureKind.OVER_CAPACITY, "queue_full")
    assert bench.released == [(flood[-1].request, SequenceStatus.WAITING)]
    bench.queue.end_step()
    assert bench.queue.num_unfinished == len(bench.queue) == 3


def test_when_it_may_have_room_again_is_the_engines_estimate() -> None:
    bench = Bench(num_slots=1, max_waiting=1)
    bench.add()
    bench.add()
    with pytest.raises(OverCapacity) as refused:
        bench.queue.add(make_sequence(), retry_after_s=5.0)
    assert refused.value.retry_after_s == 5.0


# ---- a request's way ----


def test_when_it_first_ran_is_remembered_over_a_preemption() -> None:
    bench = Bench()
    bench.add()
    running = bench.admit()
    admitted_at = bench.clock.now
    bench.clock.now += 5.0
    bench.queue.preempt(running)
    assert bench.released == [], "the engine decides what stays of it"
    assert bench.admit() is running
    assert running.admitted_at == admitted_at
    assert bench.queue.stats(active_bytes=0, kv_bytes=0, threads=1).preemptions_total == 1


def test_an_end_releases_once_and_knows_where_the_sequence_was() -> None:
    bench = Bench()
    bench.add()
    waits = bench.add()
    runs = bench.admit()
    bench.queue.end(runs)
    bench.queue.abort(waits.request)
    bench.queue.abort(waits.request)
    assert bench.released == [(runs.request, SequenceStatus.PREFILL), (waits.request, SequenceStatus.WAITING)]
    assert {runs.status, waits.status} == {SequenceStatus.FINISHED}
    assert bench.queue.begin_step().failed == []
    assert bench.queue.num_unfinished == 0


def test_a_deadline_fails_who_waits_and_who_runs_when_it_has_come() -> None:
    bench = Bench(num_slots=1)
    at = bench.clock.now + 10.0
    late = [bench.add(deadline_at=at), bench.add(deadline_at=at)]
    patient = bench.add()
    bench.admit()
    assert bench.queue.begin_step().failed == []
    bench.queue.end_step()
    bench.clock.now = at
    failures = bench.queue.begin_step().failed
    assert [(each.request, each.kind, each.code) for each in failures] == [
        (each.request, FailureKind.NOT_READY, "deadline_exceeded") for each in late
    ]
    assert patient.request in bench.queue
    assert len(bench.queue) == 1


# ---- reports ----


def test_each_report_is_handed_out_once() -> None:
    bench = Bench()
    report = bench.queue.begin_step()
    report.finished.append(finished(1))
    assert bench.queue.end_step().finished == [finished(1)]
    assert bench.queue.begin_step().finished == []
    bench.queue.end_step()
    assert bench.queue.stats(active_bytes=0, kv_bytes=0, threads=1).steps_total == 2


def test_after_a_step_that_raised_all_are_failed_also_those_that_it_had_ended() -> None:
    bench = Bench(num_slots=1)
    ended = bench.add()
    bench.admit()
    waits, expired = bench.add(), bench.add(deadline_at=bench.clock.now)
    report = bench.queue.begin_step()
    report.finished.append(finished(ended.request))
    bench.queue.end(ended)
    assert sorted(bench.queue.fail_all()) == [ended.request, waits.request, expired.request]
    assert sorted(request for request, _ in bench.released) == [ended.request, waits.request, expired.request]
    assert bench.queue.num_unfinished == 0
    assert bench.queue.begin_step().failed == []


# ---- statistics ----


@pytest.mark.parametrize(("kv_budget_bytes", "usage"), [(1 << 30, 500 / 2000), (1000, 0.5), (100, 1.0)])
def test_usage_is_a_share_of_what_running_sequences_may_take(kv_budget_bytes: int, usage: float) -> None:
    """Two rows of 100 tokens of 10 bytes, unless the budget is less."""
    bench = Bench(kv_budget_bytes=kv_budget_bytes)
    bench.add()
    bench.add()
    bench.admit()
    stats = bench.queue.stats(active_bytes=500, kv_bytes=600, threads=3, prefix_queries=4, prefix_hits=2)
    assert stats.kv_usage == usage
    assert (stats.num_running, stats.num_waiting) == (1, 1)
    assert (stats.kv_bytes, stats.threads, stats.resident_bytes) == (600, 3, 7)
    assert (stats.prefix_queries_total, stats.prefix_hits_total) == (4, 2)
