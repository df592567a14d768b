"""Plans: a few at a time, ended with who waits for them and with the daemon, held within their memory, their failures on record."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from jobs.job import QueueClosing, TooManyPlans
from jobs.permissions import JobLimits
from jobs.pipelines import Step, start_chain
from jobs.planning import KEPT_LOGS
from jobs.service import JobService
from jobs.task import JobFailure, JobKind, Plan
from tests.jobs.core.test_jobs_queue import in_queue

pytestmark = pytest.mark.api

COUNT = JobKind.FINETUNE
LIMITS = JobLimits(threads=1, plan_memory_bytes=1 << 30)
PATIENCE_S = 60  # guards against a hang


async def begin(service: JobService, note: Path) -> tuple[asyncio.Task[Plan], psutil.Process]:
    """A plan whose process runs."""
    plan = asyncio.create_task(service.plan(COUNT, {"steps": 1, "plan_note": str(note)}))
    async with asyncio.timeout(PATIENCE_S):
        while not (pid := written_in(note)):
            assert not plan.done(), plan
            await asyncio.sleep(0.01)
    return plan, psutil.Process(int(pid))


async def leave(plan: asyncio.Task[Plan]) -> None:
    plan.cancel()
    await asyncio.wait([plan])


def written_in(path: Path) -> str:
    """Nothing while the file is not there."""
    return path.read_text() if path.exists() else ""


def folders(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "jobs").iterdir())


def test_the_third_plan_is_refused_and_taken_once_there_is_room(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        plans = [await begin(service, tmp_path / name) for name in "ab"]
        with pytest.raises(TooManyPlans, match="2 plans are being made"):
            await service.plan(COUNT, {"steps": 1})
        with pytest.raises(TooManyPlans):
            await service.create(COUNT, {"steps": 1})
        with pytest.raises(TooManyPlans):
            await start_chain(service, [Step("one", COUNT, {"steps": 1})])
        assert await service.find() == []
        await leave(plans[0][0])
        assert (await service.plan(COUNT, {"steps": 7})).num_steps == 7
        await leave(plans[1][0])

    in_queue(tmp_path / "home", body, LIMITS)


def test_a_plan_that_nobody_waits_for_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        plan, process = await begin(service, tmp_path / "a")
        await leave(plan)
        assert plan.cancelled()
        assert not process.is_running()
        assert folders(tmp_path / "home") == []

    in_queue(tmp_path / "home", body, LIMITS)


@pytest.mark.parametrize("turns", range(6))
def test_one_that_is_cancelled_while_it_starts_leaves_none_either(tmp_path: Path, turns: int) -> None:
    """turns: of the event loop, after which it is cancelled."""

    async def body(service: JobService) -> None:
        await service.plan(COUNT, {"steps": 1})
        before = set(psutil.Process().children())  # other tests of this process may have left some
        plan = asyncio.create_task(service.plan(COUNT, {"steps": 1, "plan_note": str(tmp_path / "a")}))
        for _ in range(4**turns):
            await asyncio.sleep(0)
        plan.cancel()
        await asyncio.wait([plan])
        left = set(psutil.Process().children()) - before
        assert [child for child in left if child.status() != psutil.STATUS_ZOMBIE] == []
        assert folders(tmp_path / "home") == []

    in_queue(tmp_path / "home", body, LIMITS)


def test_the_end_of_the_queue_ends_plans_and_says_so(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        plan, process = await begin(service, tmp_path / "a")
        async with asyncio.timeout(PATIENCE_S):
            await service.close()
        assert not process.is_running()
        with pytest.raises(QueueClosing, match="shutting down"):
            await plan
        with pytest.raises(QueueClosing):
            await service.plan(COUNT, {"steps": 1})

    in_queue(tmp_path / "home", body, LIMITS)


def test_a_chain_keeps_its_place_from_one_plan_to_the_next(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        plan, _ = await begin(service, tmp_path / "a")
        steps = [Step(name, COUNT, {"steps": 1}) for name in ("one", "two", "three")]
        assert len(await start_chain(service, steps)) == 3
        await leave(plan)

    in_queue(tmp_path / "home", body, LIMITS)


def test_a_plan_has_a_memory_limit_of_its_own(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        with pytest.raises(JobFailure, match="Planning needs more memory than the 1024 MiB") as raised:
            await service.plan(COUNT, {"steps": 1, "plan_hog_bytes": 2 << 30})
        assert raised.value.code == "out_of_memory"

    in_queue(tmp_path / "home", body, LIMITS)


def test_the_log_of_a_plan_that_failed_is_where_the_message_says(tmp_path: Path) -> None:
    async def body(service: JobService) -> None:
        with pytest.raises(JobFailure, match="Planning failed with ZeroDivisionError") as raised:
            await service.plan(COUNT, {"steps": 1, "plan_crash": True})
        assert "secret" not in raised.value.message
        log = Path(raised.value.message.rpartition("Its log is ")[2].rstrip("."))
        assert "ZeroDivisionError" in written_in(log)

    in_queue(tmp_path / "home", body, LIMITS)


def test_only_the_newest_logs_are_kept(tmp_path: Path) -> None:
    kept = tmp_path / "home/jobs/failed-plans"
    kept.mkdir(parents=True)
    for age in range(KEPT_LOGS + 5):
        (kept / f"plan-{age}.txt").touch()
        os.utime(kept / f"plan-{age}.txt", (1e9 - age, 1e9 - age))

    async def body(service: JobService) -> None:
        with pytest.raises(JobFailure):
            await service.plan(COUNT, {"steps": 1, "plan_crash": True})

    in_queue(tmp_path / "home", body, LIMITS)
    names = {path.name for path in kept.iterdir()}
    assert len(names) == KEPT_LOGS
    assert {f"plan-{age}.txt" for age in range(KEPT_LOGS - 1)} < names


def test_what_a_killed_daemon_left_of_its_plans_is_removed(tmp_path: Path) -> None:
    old, new = (tmp_path / "home/jobs" / name for name in ("plan-old", "plan-new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (1e9, 1e9))

    async def body(service: JobService) -> None:
        assert folders(tmp_path / "home") == ["plan-new"]

    in_queue(tmp_path / "home", body, LIMITS)
