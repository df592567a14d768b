"""What the queue decides, without processes: moves, starts, verdicts, references, chains, pace."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.attempt import Pace
from jobs.fields import jobs_in, with_jobs
from jobs.job import Failure, Job, JobStatus, WrongStatus
from jobs.lifecycle import AttemptEnd, can_move, judge, move, plan_dispatch
from jobs.messages import Ended, Failed, Finished, TerminalMessage
from jobs.pipelines import Step, in_order
from jobs.task import InvalidJob, JobKind, Outcome, Problem, StopReason

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(id_: str, status: JobStatus = JobStatus.QUEUED, *needs: str, minute: int = 0) -> Job:
    return Job(id_, JobKind.FINETUNE, {}, status, NOON + timedelta(minutes=minute), needs)


def test_a_final_status_is_never_left() -> None:
    for status in JobStatus:
        assert status.is_final == (not any(can_move(job("a", status), to) for to in JobStatus))
    with pytest.raises(WrongStatus, match="is succeeded, so it cannot become running"):
        move(job("a", JobStatus.SUCCEEDED), JobStatus.RUNNING, NOON)


def test_a_start_counts_an_attempt_and_an_end_has_its_time() -> None:
    running = move(job("a"), JobStatus.RUNNING, NOON)
    queued = move(move(running, JobStatus.INTERRUPTED, NOON), JobStatus.QUEUED, NOON)
    again = move(queued, JobStatus.RUNNING, NOON + timedelta(hours=1))
    assert (again.attempt, again.started_at, again.ended_at) == (2, NOON, None)
    assert move(again, JobStatus.SUCCEEDED, NOON, outcome=Outcome("m:1")).ended_at == NOON


def test_the_oldest_of_those_that_may_start() -> None:
    jobs = [job("late", minute=2), job("early"), job("waits", JobStatus.QUEUED, "early"), job("paused", JobStatus.PAUSED)]
    decision = plan_dispatch(jobs, {"early": JobStatus.QUEUED}, max_running=2)
    assert (decision.start, decision.unrunnable) == (("early", "late"), {})
    running = [replace(jobs[1], status=JobStatus.RUNNING), jobs[0]]
    assert plan_dispatch(running, {}, max_running=1).start == ()


@pytest.mark.parametrize(
    ("needed", "end", "code"),
    [
        ({"x": JobStatus.FAILED, "y": JobStatus.CANCELLED}, JobStatus.FAILED, "need_failed"),
        ({"x": JobStatus.CANCELLED, "y": JobStatus.FAILED}, JobStatus.FAILED, "need_failed"),
        ({"x": JobStatus.CANCELLED, "y": JobStatus.RUNNING}, JobStatus.CANCELLED, "need_cancelled"),
        ({"x": JobStatus.SUCCEEDED}, JobStatus.FAILED, "need_gone"),
    ],
)
def test_who_needs_what_will_not_be_never_starts(needed: dict[str, JobStatus], end: JobStatus, code: str) -> None:
    decision = plan_dispatch([job("a", JobStatus.QUEUED, "x", "y")], needed, max_running=1)
    assert decision.start == ()
    status, failure = decision.unrunnable["a"]
    assert (status, failure.code) == (end, code)


@pytest.mark.parametrize(
    ("last", "exit_code", "requested", "num_failures", "to"),
    [
        (Finished(outcome=Outcome()), 0, StopReason.CANCEL, 0, JobStatus.SUCCEEDED),
        (None, -9, StopReason.CANCEL, 0, JobStatus.CANCELLED),
        (Ended(), 0, StopReason.PAUSE, 0, JobStatus.PAUSED),
        (None, -9, StopReason.PAUSE, 0, JobStatus.PAUSED),
        (Failed(code="x", message="x"), 0, StopReason.PAUSE, 0, JobStatus.FAILED),
        (Failed(code="x", message="x", retryable=True), 0, None, 0, JobStatus.INTERRUPTED),
        (Failed(code="x", message="x", retryable=True), 0, None, 2, JobStatus.FAILED),
        (None, -9, None, 0, JobStatus.INTERRUPTED),
        (None, -9, None, 2, JobStatus.FAILED),
        (None, 1, None, 0, JobStatus.FAILED),
    ],
)
def test_what_an_end_means(
    last: TerminalMessage | None, exit_code: int, requested: StopReason | None, num_failures: int, to: JobStatus
) -> None:
    verdict = judge(AttemptEnd(last, exit_code), requested, num_failures, max_attempts=3, is_closing=False)
    assert verdict.to is to
    assert (verdict.failure is not None) == (to in (JobStatus.FAILED, JobStatus.INTERRUPTED))


def test_a_pause_while_the_daemon_ends_is_an_interruption() -> None:
    assert judge(AttemptEnd(Ended(), 0), StopReason.PAUSE, 0, 3, is_closing=True).to is JobStatus.INTERRUPTED


def test_references_are_found_and_resolved_wherever_they_are() -> None:
    params = {"model": "@job-1", "data": ["file-abc", {"more": "@job-2", "again": "@job-1"}], "text": "mail@job-1 or @ home"}
    assert jobs_in(params) == ("job-1", "job-2")
    assert with_jobs(params, {"job-1": "job-1:1", "job-2": "job-2:1"}) == {
        "model": "job-1:1",
        "data": ["file-abc", {"more": "job-2:1", "again": "job-1:1"}],
        "text": "mail@job-1 or @ home",
    }


def test_a_chain_in_order() -> None:
    steps = [
        Step("check", JobKind.EVALUATE, {"model": "@small"}),
        Step("small", JobKind.QUANTIZE, {"model": "@tune"}, after=("look",)),
        Step("look", JobKind.EVALUATE, {"model": "m"}),
        Step("tune", JobKind.FINETUNE, {"model": "m"}),
    ]
    names = [step.name for step in in_order(steps)]
    assert names.index("tune") < names.index("small") < names.index("check")
    assert names.index("look") < names.index("small")
    assert with_jobs({"model": "@small", "n": 1}, {"small": "@job-7"}) == {"model": "@job-7", "n": 1}


def test_steps_that_need_nothing_of_each_other_run_as_they_stand() -> None:
    steps = [Step(name, JobKind.MERGE, {}, after) for name, after in (("c", ()), ("b", ("a",)), ("a", ()), ("d", ("c",)))]
    assert [step.name for step in in_order(steps)] == ["c", "a", "b", "d"]


def test_a_failure_names_its_step() -> None:
    running = replace(job("a", JobStatus.RUNNING), pipeline="pipe-1", metadata={"step": "small", "step_number": "2"})
    failed = move(running, JobStatus.FAILED, NOON, failure=Failure("x", "It broke."))
    assert failed.failure == Failure("x", "step 2 'small' (finetune): It broke.")
    alone = move(job("a", JobStatus.RUNNING), JobStatus.FAILED, NOON, failure=Failure("x", "It broke."))
    assert alone.failure == Failure("x", "It broke.")


@pytest.mark.parametrize(
    ("steps", "expected_text"),
    [
        ([], "at least one step"),
        ([Step("a", JobKind.MERGE, {}), Step("a", JobKind.MERGE, {})], "Two steps are named 'a'"),
        ([Step("a", JobKind.MERGE, {"model": "@b"})], "needs 'b', which is no step"),
        ([Step("a", JobKind.MERGE, {"model": "@b"}), Step("b", JobKind.MERGE, {"model": "@a"})], "in a circle"),
    ],
)
def test_chains_that_are_none(steps: list[Step], expected_text: str) -> None:
    with pytest.raises(InvalidJob, match=expected_text):
        in_order(steps)


def test_pace() -> None:
    pace = Pace()
    pace.note(0.0, 10)
    assert (pace.rate, pace.time_left_s(20)) == (None, None)
    pace.note(2.0, 14)
    assert (pace.rate, pace.time_left_s(20), pace.time_left_s(None)) == (2.0, 3.0, None)
    pace.note(3.0, 0)
    assert pace.rate is None, "a stage that counts anew"


def test_a_job_with_countless_problems_keeps_the_first() -> None:
    refused = InvalidJob([Problem(f"item {number} is wrong", f"items.{number}") for number in range(5_000)])
    assert (len(refused.problems), refused.param) == (100, "items.0")
    assert refused.message.splitlines()[4:] == ["item 4 is wrong", "and 4995 more"]


def pull(id_: str, status: JobStatus = JobStatus.QUEUED, *, minute: int = 0) -> Job:
    return replace(job(id_, status, minute=minute), kind=JobKind.PULL)


def test_pulls_and_other_work_never_wait_for_each_other() -> None:
    tuning = job("tuning", JobStatus.RUNNING)
    queued = [job("next", minute=1), *(pull(f"pull-{number}", minute=number) for number in (4, 2, 3))]
    assert plan_dispatch([tuning, *queued], {}, max_running=1).start == ("pull-2", "pull-3")
    pulls = [pull("a", JobStatus.RUNNING), pull("b", JobStatus.RUNNING)]
    assert plan_dispatch([*pulls, *queued], {}, max_running=1).start == ("next",)
    assert plan_dispatch([pulls[0], *queued], {}, max_running=0).start == ("pull-2",)
    assert plan_dispatch(queued, {}, max_running=1, max_pulls=0).start == ("next",)
