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

from jobs.admission import Starter
from jobs.job import Job, JobNotFound, JobsElsewhere, JobStatus, WrongStatus
from jobs.permissions import JobLimits
from jobs.service import JobService
from jobs.task import InvalidJob, JobKind
from model_registry.errors import OutOfDisk
from tests.jobs.services import job_service

pytestmark = pytest.mark.api

COUNT = JobKind.FINETUNE
LIMITS = JobLimits(threads=1, retry_after_s=(0.01,))


@asynccontextmanager
async def queue_at(home: Path, limits: JobLimits = LIMITS, **kwargs: Any) -> AsyncIterator[JobService]:
    service = job_service(home, limits, tasks="tests.doubles.counting_tasks", **kwargs)
    await service.start()
    try:
        yield service
    finally:
        await service.close()


def in_queue(home: Path, body: Callable[[JobService], Awaitable[None]], limits: JobLimits = LIMITS) -> None:
    async def main() -> None:
        async with queue_at(home, limits) as service:
            await body(service)

    asyncio.run(main())


async def ended(service: JobService, job: Job) -> Job:
    async for _ in service.events(job.id, follow=True):
        pass
    return await service.job(job.id)


async def until(service: JobService, job: Job, type_: str, number: int = 1) -> None:
    """Waits until `count` events of this type have been stored."""
    seen = 0
    async for event in service.events(job.id, follow=True):
        seen += event is not None and event.type == type_
        if seen == number:
            return


async def digest_of_ten(home: Path) -> str:
    async with queue_at(home / "reference") as service:
        job = await ended(service, await service.create(COUNT, {"steps": 10}))
    assert job.outcome is not None
    return str(job.outcome.details["digest"])


def test_a_job_runs_to_its_end(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        created = await service.create(COUNT, {"steps": 3}, metadata={"who": "me"})
        assert created.plan is not None
        assert created.plan.summary == ("Counts to 3.",)
        job = await ended(service, created)
        assert (job.status, job.attempt, job.metadata) == (JobStatus.SUCCEEDED, 1, {"who": "me"})
        assert job.outcome is not None
        assert job.outcome.metrics["attempts"] == 1
        assert (job.progress.stage, job.progress.step, job.progress.total) == ("counting", 3, 3)
        assert job.progress.metrics == {"loss": pytest.approx(1 / 3)}
        events = [event async for event in service.events(job.id)]
        assert [event.number for event in events if event] == list(range(1, len(events) + 1))
        steps = [event.data for event in events if event and event.type == "progress"]
        assert [each["step"] for each in steps] == [1, 2, 3]
        assert steps[0].keys() == {"step", "total", "unit", "rate", "time_left_s", "metrics"}
        reported = [event.data["status"] for event in events if event and event.type == "status"]
        assert reported == ["queued", "running", "succeeded"]
        assert next(event.number for event in [each async for each in service.events(job.id, after=2)] if event) == 3

    in_queue(tmp_path, body)


def test_the_daemon_s_secrets_do_not_reach_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "SSH_AUTH_SOCK", "SLMOPS_API_KEY", "HF_TOKEN", "https_proxy")
    for name in secrets:
        monkeypatch.setenv(name, "s3cret")

    async def body(service: JobService) -> None:
        job = await service.create(COUNT, {"steps": 2, "gate": str(tmp_path / "gate")})
        await until(service, job, "checkpoint")
        (process,) = [child for child in psutil.Process().children() if "jobs.child" in child.cmdline()]
        variables = process.environ()
        assert "s3cret" not in variables.values()
        assert variables["USE_HUB_KERNELS"] == "NO"
        (tmp_path / "gate").touch()
        assert (await ended(service, job)).status is JobStatus.SUCCEEDED

    in_queue(tmp_path, body, replace(LIMITS, offline=True))


def test_bad_params_and_bad_data_are_refused_before_anything_is_queued(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        with pytest.raises(InvalidJob) as caught:
            await service.create(COUNT, {"steps": 0})
        (problem,) = caught.value.problems
        assert str(problem) == "numbers.jsonl:3: there is nothing to count"
        with pytest.raises(InvalidJob, match=r"'stops'.*'steps'") as misspelt:
            await service.create(COUNT, {"steps": 1, "stops": 2})
        assert (misspelt.value.param, misspelt.value.code) == ("stops", "unsupported_parameter")
        assert await service.find() == []
        assert list((tmp_path / "jobs").iterdir()) == []

    in_queue(tmp_path, body)


def test_one_runs_at_a_time_in_order(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        gate = tmp_path / "gate"
        first = await service.create(COUNT, {"steps": 2, "gate": str(gate)})
        second = await service.create(COUNT, {"steps": 1})
        await until(service, first, "checkpoint")
        assert (await service.job(second.id)).status is JobStatus.QUEUED
        gate.touch()
        assert (await ended(service, second)).status is JobStatus.SUCCEEDED
        assert [job.id for job in await service.find()] == [second.id, first.id]
        assert [job.id for job in await service.find(after=second.id)] == [first.id]

    in_queue(tmp_path, body)


@pytest.mark.parametrize("deaf", [False, True])
def test_cancel_takes_two_seconds_at_most_also_when_the_task_does_not_listen(tmp_path: Path, deaf: bool) -> None:
    async def body(service: JobService) -> None:
        job = await service.create(COUNT, {"steps": 2, "gate": str(tmp_path / "never"), "deaf": deaf})
        await until(service, job, "checkpoint")
        began_s = time.monotonic()
        assert (await service.cancel(job.id)).status is JobStatus.CANCELLED
        assert time.monotonic() - began_s < 2
        with pytest.raises(WrongStatus, match="has ended"):
            await service.cancel(job.id)
        await service.delete(job.id)
        with pytest.raises(JobNotFound):
            await service.job(job.id)
        assert not service.folder(job.id).exists()

    in_queue(tmp_path, body)


def test_a_paused_job_resumes_with_the_same_result(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        gate = tmp_path / "gate"
        job = await service.create(COUNT, {"steps": 10, "gate": str(gate)})
        await until(service, job, "checkpoint", 9)
        assert (await service.pause(job.id)).status is JobStatus.PAUSED
        with pytest.raises(WrongStatus):
            await service.delete(job.id)
        gate.touch()
        await service.resume(job.id)
        done = await ended(service, job)
        assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 2)
        assert done.outcome is not None
        assert done.outcome.details["digest"] == await digest_of_ten(tmp_path)

    in_queue(tmp_path, body)


def test_a_killed_process_is_started_again_and_ends_with_the_same_result(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        done = await ended(service, await service.create(COUNT, {"steps": 10, "kill_at": 5}))
        assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 2)
        assert done.outcome is not None
        assert done.outcome.details["digest"] == await digest_of_ten(tmp_path)

    in_queue(tmp_path, body)


@pytest.mark.parametrize(("retryable", "status", "attempts"), [(True, JobStatus.SUCCEEDED, 2), (False, JobStatus.FAILED, 1)])
def test_retryable_failures_are_retried(tmp_path: Path, retryable: bool, status: JobStatus, attempts: int) -> None:
    async def body(service: JobService) -> None:
        done = await ended(service, await service.create(COUNT, {"steps": 3, "fail_at": 0, "retryable": retryable}))
        assert (done.status, done.attempt) == (status, attempts)
        if not retryable:
            assert done.failure is not None
            assert (done.failure.code, done.failure.message) == ("wind", "The wind blew. Try again.")

    in_queue(tmp_path, body)


def test_too_much_memory_is_reported_with_what_to_lower(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        done = await ended(service, await service.create(COUNT, {"steps": 1, "hog_bytes": 4 << 30}))
        assert done.failure is not None
        assert done.failure.code == "out_of_memory"
        assert "Lower batch_size" in done.failure.message

    in_queue(tmp_path, body, JobLimits(memory_bytes=1 << 30))


def test_a_defect_is_in_the_log_and_not_in_the_message(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        done = await ended(service, await service.create(COUNT, {"steps": 1, "crash": True}))
        assert done.failure is not None
        assert done.failure.code == "internal_error"
        assert "secret" not in done.failure.message
        assert "ZeroDivisionError: a secret" in service.log(done.id).read_text()

    in_queue(tmp_path, body)


def test_a_result_that_cannot_be_sent_is_a_defect(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        done = await ended(service, await service.create(COUNT, {"steps": 1, "unsayable": True}))
        assert (done.status, done.attempt) == (JobStatus.FAILED, 1)
        assert "which is no JSON value" in service.log(done.id).read_text()

    in_queue(tmp_path, body)


def test_a_job_waits_for_what_it_needs_and_fails_with_it(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        gate = tmp_path / "gate"
        first = await service.create(COUNT, {"steps": 1, "gate": str(gate)})
        waits = await service.create(COUNT, {"steps": 1}, needs=[first.id])
        bad = await service.create(COUNT, {"steps": 2, "fail_at": 0, "retryable": False})
        after_bad = await service.create(COUNT, {"steps": 1}, needs=[bad.id])
        gate.touch()
        assert (await ended(service, waits)).status is JobStatus.SUCCEEDED
        dependent = await ended(service, after_bad)
        assert (dependent.status, dependent.attempt) == (JobStatus.FAILED, 0)
        assert dependent.failure is not None
        assert bad.id in dependent.failure.message
        with pytest.raises(JobNotFound):
            await service.create(COUNT, {"steps": 1}, needs=["job-none"])

    in_queue(tmp_path, body)


def test_a_job_that_is_cancelled_while_its_start_is_prepared_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(service: JobService) -> None:
        go, prepare = asyncio.Event(), Starter.start

        async def slowly(*args: Any, plan: bool = False, **given: Any) -> Any:
            if not plan:
                await go.wait()
            return await prepare(*args, plan=plan, **given)

        monkeypatch.setattr(Starter, "start", slowly)
        job = await service.create(COUNT, {"steps": 1})
        assert (await service.job(job.id)).status is JobStatus.RUNNING
        assert (await service.cancel(job.id)).status is JobStatus.CANCELLED
        go.set()
        after = await ended(service, await service.create(COUNT, {"steps": 1}))
        assert after.status is JobStatus.SUCCEEDED
        assert not service.log(job.id).exists()
        with pytest.raises(WrongStatus):
            await service.cancel(job.id)

    in_queue(tmp_path, body)


def test_a_job_is_cancelled_with_what_it_needs(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        first = await service.create(COUNT, {"steps": 1, "gate": str(tmp_path / "never")})
        second = await service.create(COUNT, {"steps": 1}, needs=[first.id])
        third = await service.create(COUNT, {"steps": 1}, needs=[second.id])
        await service.cancel(first.id)
        for job in (await ended(service, second), await ended(service, third)):
            assert (job.status, job.attempt) == (JobStatus.CANCELLED, 0)
            assert job.failure is not None
            assert job.failure.code == "need_cancelled"

    in_queue(tmp_path, body)


def test_the_next_daemon_goes_on_where_this_one_ended(tmp_path: Path) -> None:
    async def main() -> None:
        gate = tmp_path / "gate"
        async with queue_at(tmp_path) as service:
            job = await service.create(COUNT, {"steps": 10, "gate": str(gate)})
            await until(service, job, "checkpoint", 9)
        gate.touch()
        async with queue_at(tmp_path) as service:
            done = await ended(service, job)
        assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 2)
        assert done.outcome is not None
        assert done.outcome.details["digest"] == await digest_of_ten(tmp_path)

    asyncio.run(main())


def test_one_process_at_a_time_runs_the_jobs_of_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.ownership.RETRY_EVERY_S", 0.01)

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
                assert second._ownership._waiting is not None
                await second._ownership._waiting
                assert not second.is_elsewhere
                assert (await ended(second, await second.create(COUNT, {"steps": 1}))).status is JobStatus.SUCCEEDED

    asyncio.run(main())


def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.record.STORE_AGAIN_S", 0.01)

    async def body(service: JobService) -> None:
        gate = tmp_path / "gate"
        job = await service.create(COUNT, {"steps": 2, "gate": str(gate)})
        await until(service, job, "checkpoint")
        save, refused = service._store.save, 0

        def full(*args: Any) -> None:
            nonlocal refused
            refused += 1
            if refused <= 3:
                raise OutOfDisk("The disk is full.", needed_bytes=1)
            save(*args)

        monkeypatch.setattr(service._store, "save", full)
        gate.touch()
        while (record := service._table.record(job.id)) is not None:
            await record.wait_beyond(record._stored_number, 1.0)
        assert refused > 3
        assert (await service.job(job.id)).status is JobStatus.SUCCEEDED
        events = [event async for event in service.events(job.id) if event]
        assert [event.number for event in events] == list(range(1, len(events) + 1)), "none was lost"
        assert events[-1].data["status"] == "succeeded"

    in_queue(tmp_path, body)


def test_what_is_needed_is_not_deleted(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        gate = tmp_path / "gate"
        made = await ended(service, await service.create(COUNT, {"steps": 1}))
        runs = await service.create(COUNT, {"steps": 1, "gate": str(gate)})
        waits = await service.create(COUNT, {"steps": 1}, needs=[made.id])
        with pytest.raises(WrongStatus, match=f"{waits.id} needs {made.id}"):
            await service.delete(made.id)
        gate.touch()
        await ended(service, runs)
        assert (await ended(service, waits)).status is JobStatus.SUCCEEDED
        await service.delete(made.id)

    in_queue(tmp_path, body)


def test_what_a_plan_leaves_is_its_job_s(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        await service.plan(COUNT, {"steps": 1})
        first = await ended(service, await service.create(COUNT, {"steps": 1}))
        gate = tmp_path / "gate"
        running = await service.create(COUNT, {"steps": 1, "gate": str(gate)})
        unplanned = await service.create(COUNT, {"steps": 1}, needs=[running.id])
        gate.touch()
        after = await ended(service, unplanned)
        assert first.outcome is not None
        assert after.outcome is not None
        assert (first.outcome.details["planned"], after.outcome.details["planned"]) == (["planned"], [])
        assert not (service.folder(first.id) / "work/planned").exists(), "of no use any more"
        assert not list((tmp_path / "jobs").glob("plan-*"))

    in_queue(tmp_path, body)


def test_changes_are_reported(tmp_path: Path) -> None:
    reported: list[JobStatus] = []

    async def main() -> None:
        async with queue_at(tmp_path, on_change=lambda job: reported.append(job.status)) as service:
            await ended(service, await service.create(COUNT, {"steps": 1}))

    asyncio.run(main())
    assert list(dict.fromkeys(reported)) == [JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED]


def test_a_job_is_modest(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        gate = tmp_path / "gate"
        job = await service.create(COUNT, {"steps": 2, "gate": str(gate)})
        await until(service, job, "checkpoint")
        attempt = service._runner._attempts[job.id]
        assert attempt._child is not None
        pid = attempt._child.pid
        assert os.sched_getscheduler(pid) == os.SCHED_IDLE
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        os.kill(pid, signal.SIGINT)
        gate.touch()
        assert (await ended(service, job)).attempt == 1, "ctrl-C in the daemon's terminal does not reach it"

    in_queue(tmp_path, body)
