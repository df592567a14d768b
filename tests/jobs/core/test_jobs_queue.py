"""The job queue with real processes: how jobs start, end, stop, come back, and what they leave."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.job import InvalidJob, Job, JobKind, JobNotFound, JobsElsewhere, JobStatus, WrongStatus
from jobs.job_queue import JobQueue
from jobs.limits import JobLimits
from jobs.store import JobStore
from jobs.supervisor import Supervisor
from model_registry.database import Database
from model_registry.errors import OutOfDisk

COUNT = JobKind.FINETUNE
LIMITS = JobLimits(threads=1, retry_after_s=(0.01,))


@pytest.fixture(autouse=True)
def _tasks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@asynccontextmanager
async def queue_at(home: Path, limits: JobLimits = LIMITS, **kwargs: Any) -> AsyncIterator[JobQueue]:
    queue = JobQueue(JobStore(Database(home)), limits, tasks="counting_tasks", **kwargs)
    await queue.start()
    try:
        yield queue
    finally:
        await queue.close()


def in_queue(home: Path, body: Callable[[JobQueue], Awaitable[None]], limits: JobLimits = LIMITS) -> None:
    async def main() -> None:
        async with queue_at(home, limits) as queue:
            await body(queue)

    asyncio.run(main())


async def ended(queue: JobQueue, job: Job) -> Job:
    async for _ in queue.events(job.id, follow=True):
        pass
    return await queue.job(job.id)


async def until(queue: JobQueue, job: Job, type_: str, number: int = 1) -> None:
    """Until so many events of this type have been told."""
    seen = 0
    async for event in queue.events(job.id, follow=True):
        seen += event is not None and event.type == type_
        if seen == number:
            return


async def digest_of_ten(home: Path) -> str:
    async with queue_at(home / "reference") as queue:
        job = await ended(queue, await queue.create(COUNT, {"steps": 10}))
    assert job.outcome is not None
    return str(job.outcome.details["digest"])


def test_a_job_runs_to_its_end(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        created = await queue.create(COUNT, {"steps": 3}, metadata={"who": "me"})
        assert created.plan is not None
        assert created.plan.summary == ("Counts to 3.",)
        job = await ended(queue, created)
        assert (job.status, job.attempt, job.metadata) == (JobStatus.SUCCEEDED, 1, {"who": "me"})
        assert job.outcome is not None
        assert job.outcome.metrics["attempts"] == 1
        assert (job.progress.stage, job.progress.step, job.progress.total) == ("counting", 3, 3)
        assert job.progress.metrics == {"loss": pytest.approx(1 / 3)}
        events = [event async for event in queue.events(job.id)]
        assert [event.number for event in events if event] == list(range(1, len(events) + 1))
        steps = [event.data for event in events if event and event.type == "progress"]
        assert [each["step"] for each in steps] == [1, 2, 3]
        assert steps[0].keys() == {"step", "total", "unit", "rate", "time_left_s", "metrics"}
        told = [event.data["status"] for event in events if event and event.type == "status"]
        assert told == ["queued", "running", "succeeded"]
        assert next(event.number for event in [each async for each in queue.events(job.id, after=2)] if event) == 3

    in_queue(tmp_path, body)


def test_the_daemon_s_secrets_do_not_reach_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "SSH_AUTH_SOCK", "SLMOPS_API_KEY", "HF_TOKEN", "https_proxy")
    for name in secrets:
        monkeypatch.setenv(name, "s3cret")

    async def body(queue: JobQueue) -> None:
        job = await queue.create(COUNT, {"steps": 2, "gate": str(tmp_path / "gate")})
        await until(queue, job, "checkpoint")
        (process,) = [child for child in psutil.Process().children() if "jobs.child" in child.cmdline()]
        variables = process.environ()
        assert "s3cret" not in variables.values()
        assert variables["USE_HUB_KERNELS"] == "NO"
        (tmp_path / "gate").touch()
        assert (await ended(queue, job)).status is JobStatus.SUCCEEDED

    in_queue(tmp_path, body, replace(LIMITS, offline=True))


def test_bad_params_and_bad_data_are_refused_before_anything_is_queued(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        with pytest.raises(InvalidJob) as caught:
            await queue.create(COUNT, {"steps": 0})
        (problem,) = caught.value.problems
        assert str(problem) == "numbers.jsonl:3: there is nothing to count"
        with pytest.raises(InvalidJob, match="stops: there is no such param; there are steps, gate"):
            await queue.create(COUNT, {"steps": 1, "stops": 2})
        assert await queue.jobs() == []
        assert list((tmp_path / "jobs").iterdir()) == []

    in_queue(tmp_path, body)


def test_one_runs_at_a_time_in_order(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        gate = tmp_path / "gate"
        first = await queue.create(COUNT, {"steps": 2, "gate": str(gate)})
        second = await queue.create(COUNT, {"steps": 1})
        await until(queue, first, "checkpoint")
        assert (await queue.job(second.id)).status is JobStatus.QUEUED
        gate.touch()
        assert (await ended(queue, second)).status is JobStatus.SUCCEEDED
        assert [job.id for job in await queue.jobs()] == [second.id, first.id]
        assert [job.id for job in await queue.jobs(after=second.id)] == [first.id]

    in_queue(tmp_path, body)


@pytest.mark.parametrize("deaf", [False, True])
def test_cancel_takes_two_seconds_at_most_also_when_the_task_does_not_listen(tmp_path: Path, deaf: bool) -> None:
    async def body(queue: JobQueue) -> None:
        job = await queue.create(COUNT, {"steps": 2, "gate": str(tmp_path / "never"), "deaf": deaf})
        await until(queue, job, "checkpoint")
        began_s = time.monotonic()
        assert (await queue.cancel(job.id)).status is JobStatus.CANCELLED
        assert time.monotonic() - began_s < 2
        with pytest.raises(WrongStatus, match="has ended"):
            await queue.cancel(job.id)
        await queue.delete(job.id)
        with pytest.raises(JobNotFound):
            await queue.job(job.id)
        assert not queue.folder(job.id).exists()

    in_queue(tmp_path, body)


def test_a_paused_job_resumes_with_the_same_result(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        gate = tmp_path / "gate"
        job = await queue.create(COUNT, {"steps": 10, "gate": str(gate)})
        await until(queue, job, "checkpoint", 9)
        assert (await queue.pause(job.id)).status is JobStatus.PAUSED
        with pytest.raises(WrongStatus):
            await queue.delete(job.id)
        gate.touch()
        await queue.resume(job.id)
        done = await ended(queue, job)
        assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 2)
        assert done.outcome is not None
        assert done.outcome.details["digest"] == await digest_of_ten(tmp_path)

    in_queue(tmp_path, body)


def test_a_killed_process_is_started_again_and_ends_with_the_same_result(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        done = await ended(queue, await queue.create(COUNT, {"steps": 10, "kill_at": 5}))
        assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 2)
        assert done.outcome is not None
        assert done.outcome.details["digest"] == await digest_of_ten(tmp_path)

    in_queue(tmp_path, body)


@pytest.mark.parametrize(("may_pass", "status", "attempts"), [(True, JobStatus.SUCCEEDED, 2), (False, JobStatus.FAILED, 1)])
def test_what_may_pass_is_tried_again(tmp_path: Path, may_pass: bool, status: JobStatus, attempts: int) -> None:
    async def body(queue: JobQueue) -> None:
        done = await ended(queue, await queue.create(COUNT, {"steps": 3, "fail_at": 0, "may_pass": may_pass}))
        assert (done.status, done.attempt) == (status, attempts)
        if not may_pass:
            assert done.failure is not None
            assert (done.failure.code, done.failure.message) == ("wind", "The wind blew. Try again.")

    in_queue(tmp_path, body)


def test_too_much_memory_is_told_with_what_to_lower(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        done = await ended(queue, await queue.create(COUNT, {"steps": 1, "hog_bytes": 4 << 30}))
        assert done.failure is not None
        assert done.failure.code == "out_of_memory"
        assert "Lower batch_size" in done.failure.message

    in_queue(tmp_path, body, JobLimits(memory_bytes=1 << 30))


def test_a_defect_is_in_the_log_and_not_in_the_message(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        done = await ended(queue, await queue.create(COUNT, {"steps": 1, "crash": True}))
        assert done.failure is not None
        assert done.failure.code == "internal_error"
        assert "secret" not in done.failure.message
        assert "ZeroDivisionError: a secret" in queue.log(done.id).read_text()

    in_queue(tmp_path, body)


def test_a_result_that_cannot_be_told_is_a_defect(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        done = await ended(queue, await queue.create(COUNT, {"steps": 1, "unsayable": True}))
        assert (done.status, done.attempt) == (JobStatus.FAILED, 1)
        assert "which is no JSON value" in queue.log(done.id).read_text()

    in_queue(tmp_path, body)


def test_a_job_waits_for_what_it_needs_and_fails_with_it(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        gate = tmp_path / "gate"
        first = await queue.create(COUNT, {"steps": 1, "gate": str(gate)})
        waits = await queue.create(COUNT, {"steps": 1}, needs=[first.id])
        bad = await queue.create(COUNT, {"steps": 2, "fail_at": 0, "may_pass": False})
        after_bad = await queue.create(COUNT, {"steps": 1}, needs=[bad.id])
        gate.touch()
        assert (await ended(queue, waits)).status is JobStatus.SUCCEEDED
        doomed = await ended(queue, after_bad)
        assert (doomed.status, doomed.attempt) == (JobStatus.FAILED, 0)
        assert doomed.failure is not None
        assert bad.id in doomed.failure.message
        with pytest.raises(JobNotFound):
            await queue.create(COUNT, {"steps": 1}, needs=["job-none"])

    in_queue(tmp_path, body)


def test_a_job_that_is_cancelled_while_its_start_is_prepared_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(queue: JobQueue) -> None:
        go, prepare = asyncio.Event(), Supervisor.start_of

        async def slowly(*args: Any, plan: bool = False, **given: Any) -> Any:
            if not plan:
                await go.wait()
            return await prepare(*args, plan=plan, **given)

        monkeypatch.setattr(Supervisor, "start_of", slowly)
        job = await queue.create(COUNT, {"steps": 1})
        assert (await queue.job(job.id)).status is JobStatus.RUNNING
        assert (await queue.cancel(job.id)).status is JobStatus.CANCELLED
        go.set()
        after = await ended(queue, await queue.create(COUNT, {"steps": 1}))
        assert after.status is JobStatus.SUCCEEDED
        assert not queue.log(job.id).exists()
        with pytest.raises(WrongStatus):
            await queue.cancel(job.id)

    in_queue(tmp_path, body)


def test_a_job_is_cancelled_with_what_it_needs(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        first = await queue.create(COUNT, {"steps": 1, "gate": str(tmp_path / "never")})
        second = await queue.create(COUNT, {"steps": 1}, needs=[first.id])
        third = await queue.create(COUNT, {"steps": 1}, needs=[second.id])
        await queue.cancel(first.id)
        for job in (await ended(queue, second), await ended(queue, third)):
            assert (job.status, job.attempt) == (JobStatus.CANCELLED, 0)
            assert job.failure is not None
            assert job.failure.code == "need_cancelled"

    in_queue(tmp_path, body)


def test_the_next_daemon_goes_on_where_this_one_ended(tmp_path: Path) -> None:
    async def main() -> None:
        gate = tmp_path / "gate"
        async with queue_at(tmp_path) as queue:
            job = await queue.create(COUNT, {"steps": 10, "gate": str(gate)})
            await until(queue, job, "checkpoint", 9)
        gate.touch()
        async with queue_at(tmp_path) as queue:
            done = await ended(queue, job)
        assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 2)
        assert done.outcome is not None
        assert done.outcome.details["digest"] == await digest_of_ten(tmp_path)

    asyncio.run(main())


def test_one_process_at_a_time_runs_the_jobs_of_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.supervisor.OWN_EVERY_S", 0.01)

    async def main() -> None:
        gate = tmp_path / "gate"
        async with queue_at(tmp_path) as first:
            job = await first.create(COUNT, {"steps": 2, "gate": str(gate)})
            await until(first, job, "checkpoint")
            async with queue_at(tmp_path) as second:
                assert second.is_elsewhere
                assert (await second.job(job.id)).status is JobStatus.RUNNING, "it is read, and not taken up"
                for refused in (
                    second.create(COUNT, {"steps": 1}),
                    second.cancel(job.id),
                    second.resume(job.id),
                    second.delete(job.id),
                ):
                    with pytest.raises(JobsElsewhere, match="Another slmops process"):
                        await refused
                gate.touch()
                done = await ended(second, job)
                assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 1), "followed from the other process"
                await first.close()
                assert second._supervisor._waiting is not None
                await second._supervisor._waiting
                assert not second.is_elsewhere
                assert (await ended(second, await second.create(COUNT, {"steps": 1}))).status is JobStatus.SUCCEEDED

    asyncio.run(main())


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.record.STORE_AGAIN_S", 0.01)

    async def body(queue: JobQueue) -> None:
        gate = tmp_path / "gate"
        job = await queue.create(COUNT, {"steps": 2, "gate": str(gate)})
        await until(queue, job, "checkpoint")
        save, refused = queue._store.save, 0

        def full(*args: Any) -> None:
            nonlocal refused
            refused += 1
            if refused <= 3:
                raise OutOfDisk("The disk is full.", needed_bytes=1)
            save(*args)

        monkeypatch.setattr(queue._store, "save", full)
        gate.touch()
        while (record := queue._supervisor.record(job.id)) is not None:
            await record.wait_beyond(record._stored_number, 1.0)
        assert refused > 3
        assert (await queue.job(job.id)).status is JobStatus.SUCCEEDED
        events = [event async for event in queue.events(job.id) if event]
        assert [event.number for event in events] == list(range(1, len(events) + 1)), "none was lost"
        assert events[-1].data["status"] == "succeeded"

    in_queue(tmp_path, body)


def test_what_is_needed_is_not_deleted(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        gate = tmp_path / "gate"
        made = await ended(queue, await queue.create(COUNT, {"steps": 1}))
        runs = await queue.create(COUNT, {"steps": 1, "gate": str(gate)})
        waits = await queue.create(COUNT, {"steps": 1}, needs=[made.id])
        with pytest.raises(WrongStatus, match=f"{waits.id} needs {made.id}"):
            await queue.delete(made.id)
        gate.touch()
        await ended(queue, runs)
        assert (await ended(queue, waits)).status is JobStatus.SUCCEEDED
        await queue.delete(made.id)

    in_queue(tmp_path, body)


def test_changes_are_told(tmp_path: Path) -> None:
    told: list[JobStatus] = []

    async def main() -> None:
        async with queue_at(tmp_path, on_change=lambda job: told.append(job.status)) as queue:
            await ended(queue, await queue.create(COUNT, {"steps": 1}))

    asyncio.run(main())
    assert list(dict.fromkeys(told)) == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]


def test_a_job_is_modest(tmp_path: Path) -> None:
    async def body(queue: JobQueue) -> None:
        gate = tmp_path / "gate"
        job = await queue.create(COUNT, {"steps": 2, "gate": str(gate)})
        await until(queue, job, "checkpoint")
        attempt = queue._supervisor._attempts[job.id]
        assert attempt._child is not None
        pid = attempt._child.pid
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        os.kill(pid, signal.SIGINT)
        gate.touch()
        assert (await ended(queue, job)).attempt == 1, "ctrl-C in the daemon's terminal does not reach it"

    in_queue(tmp_path, body)
