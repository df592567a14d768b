"""Plans jobs, each in a process of its own. A few run at a time; a plan whose caller has left is ended.

Owns these processes, their folders and the logs of those that failed. Decides nothing about jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.attempt import Attempt
from jobs.job import WORK, QueueClosing, TooManyPlans
from jobs.lifecycle import AttemptEnd
from jobs.messages import Failed, Planned, Refused, Start
from jobs.permissions import JobLimits
from jobs.runner import LOG
from jobs.task import PLANNED, InvalidJob, JobFailure, JobKind, Plan, Problem
from model_registry.disk import make_private_folder
from model_registry.errors import OutOfDisk, RegistryBusy, RegistryError

PLAN_TIMEOUT_S = 300.0
KEPT_LOGS = 10  # of plans that failed, the newest
LEFT_AFTER_S = 3600.0  # a folder that old is of a plan whose daemon was killed
_FAILED = "failed-plans"
_PREFIX = "plan-"
StartOf = Callable[[str, JobKind, Mapping[str, Any], Path], Awaitable[Start]]


class PlanSlot:
    """The right to have one plan after another made, from `Planner.slot`. Only to have it counts."""


@dataclass(frozen=True, slots=True)
class MadePlan:
    """left: the folder in which the plan's task left what its run can use; there is none when it left nothing."""

    plan: Plan
    left: Path

    def hand_over(self, folder: Path) -> None:
        """Moves what was left to a job. folder: the job's. Waits for the disk."""
        with contextlib.suppress(OSError, RegistryError):  # without it, the run does that work again
            if self.left.is_dir():
                self.left.rename(make_private_folder(folder / WORK) / PLANNED)


class Planner:
    """folder: where jobs have theirs. start_of: makes the first message of a plan's process, by id, kind, params and folder."""

    def __init__(self, folder: Path, start_of: StartOf, limits: JobLimits, tasks: str) -> None:
        self._folder = folder
        self._start_of = start_of
        self._limits = limits
        self._tasks = tasks
        self._num_slots = 0
        self._running: set[asyncio.Task[AttemptEnd]] = set()
        self._is_closing = False

    @contextlib.contextmanager
    def slot(self) -> Iterator[PlanSlot]:
        """Raises TooManyPlans at once when all are taken, QueueClosing while the daemon ends."""
        if self._is_closing:
            raise QueueClosing
        if self._num_slots >= self._limits.max_plans:
            raise TooManyPlans(f"{self._num_slots} plans are being made, and no more at a time. Try again when one is done.")
        self._num_slots += 1
        try:
            yield PlanSlot()
        finally:
            self._num_slots -= 1

    @contextlib.asynccontextmanager
    async def plan(self, kind: JobKind, params: Mapping[str, Any], slot: PlanSlot) -> AsyncIterator[MadePlan]:
        """What the plan left is there within the block. Cancelled while it is made, it kills the process.

        Raises InvalidJob, JobFailure, QueueClosing, RegistryBusy, OutOfDisk, NotWritable.
        """
        id_ = f"{_PREFIX}{secrets.token_hex(8)}"
        folder = self._folder / id_
        try:
            start = await self._started(self._start_of(id_, kind, params, folder))
            end = await self._end_of(Attempt(None, start, folder / LOG, self._tasks))
            if _is_described_in_log(end):
                kept = await asyncio.to_thread(self._keep_log, folder)
                raise JobFailure(f"{_what_ended(end)} Its log is {kept}.", code="internal_error")
            yield MadePlan(_plan_of(end), folder / WORK / PLANNED)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def close(self) -> None:
        """Ends all plans; callers that wait for one get QueueClosing."""
        self._is_closing = True
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def sweep(self) -> None:
        """Removes what plans of a daemon that was killed have left. Waits for the disk."""
        for folder in self._folder.glob(f"{_PREFIX}*"):
            if folder.stat().st_mtime < time.time() - LEFT_AFTER_S:
                shutil.rmtree(folder, ignore_errors=True)

    async def _started(self, starting: Awaitable[Start]) -> Start:
        """Cancelled, it waits: a folder that a thread is just making would else appear after it was removed."""
        task = asyncio.ensure_future(starting)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _end_of(self, attempt: Attempt) -> AttemptEnd:
        task = asyncio.create_task(attempt.run(), name="plan")
        self._running.add(task)
        try:
            async with asyncio.timeout(PLAN_TIMEOUT_S):
                return await task
        except TimeoutError:
            raise JobFailure(f"Planning took longer than {PLAN_TIMEOUT_S:.0f} s: give it less data.", code="timeout") from None
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if self._is_closing and me is not None and not me.cancelling():
                raise QueueClosing from None
            raise
        finally:
            self._running.discard(task)

    def _keep_log(self, folder: Path) -> Path:
        """The log of a plan that failed, moved where it stays until newer ones take its place."""
        kept = make_private_folder(self._folder / _FAILED) / f"{folder.name}.txt"
        (folder / LOG).replace(kept)
        oldest_last = sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in oldest_last[KEPT_LOGS:]:
            path.unlink(missing_ok=True)
        return kept


def _is_described_in_log(end: AttemptEnd) -> bool:
    """Whether the log alone has the reason of the failure."""
    return end.last is None or (isinstance(end.last, Failed) and end.last.code == "internal_error")


def _what_ended(end: AttemptEnd) -> str:
    if isinstance(end.last, Failed):
        return end.last.message
    return f"The process that plans jobs ended with exit code {end.exit_code}."


def _plan_of(end: AttemptEnd) -> Plan:
    match end.last:
        case Planned(plan=plan):
            return plan
        case Refused(problems=problems):
            raise InvalidJob(problems)
        case Failed(code="registry_busy", message=message):
            raise RegistryBusy(message)
        case Failed(code="out_of_disk", message=message):
            raise OutOfDisk(message, needed_bytes=1 << 20)
        case Failed(code="model_not_found" | "unsupported_model" | "registry_error" as code, message=message):
            raise InvalidJob([Problem(message, code=code)])
        case Failed(code=code, message=message, retryable=retryable):
            raise JobFailure(message, code=code, retryable=retryable)
    raise JobFailure(f"The process that plans jobs sent {type(end.last).__name__} instead of a plan.", code="internal_error")
