"""One attempt at a job: its process from start to end, and what it said on the way. Decides nothing of what follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.child_process import ChildProcess
from jobs.job import Progress
from jobs.messages import Checkpointed, Failed, FromChild, Last, Progressed, Said, Staged, Start
from jobs.pace import Pace
from jobs.record import JobRecord
from jobs.task import StopReason
from model_registry.errors import NotWritable, OutOfDisk

TELL_EVERY_S = 2.0  # of a progress without figures, as an event
GRACE_S: Mapping[StopReason, float] = {StopReason.CANCEL: 0.8, StopReason.PAUSE: 120.0}


@dataclass(frozen=True, slots=True)
class End:
    """last: the process's last word, None if it died without one. exit_code: negative for a signal."""

    last: Last | None
    exit_code: int


class Attempt:
    """record: where its progress goes; None: nowhere. asked: why its end was asked for. has_checkpoint: it left one.

    over: set, by its owner, when what follows from its end was done.
    """

    def __init__(self, record: JobRecord | None, start: Start, log: Path, tasks: str) -> None:
        self._record = record
        self._start = start
        self._log = log
        self._tasks = tasks
        self._pace = Pace()
        self._told_s = float("-inf")
        self._child: ChildProcess | None = None
        self._killer: asyncio.TimerHandle | None = None
        self.asked: StopReason | None = None
        self.has_checkpoint = False
        self.over = asyncio.Event()

    async def run(self) -> End:
        """Until the process is gone. Cancelled, it kills the process."""
        try:
            self._child = child = await ChildProcess.start(self._start, self._log, self._tasks)
        except OSError as error:
            why = f"The job's process cannot be started: {error.strerror}. Free some disk space and memory."
            return End(Failed(code="not_started", message=why, may_pass=True), -1)
        except OutOfDisk as error:
            return End(Failed(code="out_of_disk", message=error.message), -1)
        except NotWritable as error:
            return End(Failed(code="not_writable", message=error.message), -1)
        last: Last | None = None
        try:
            if self.asked is not None:
                child.stop(self.asked)
            async for message in child.messages():
                if not isinstance(message, Staged | Progressed | Said | Checkpointed):
                    last = message
                elif self._record is not None:
                    self._note(message, self._record)
                    self._record.store_soon()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        code = await child.wait()
        if self._killer is not None:
            self._killer.cancel()
        return End(last, code)

    def stop(self, reason: StopReason, grace_s: float | None = None) -> None:
        """Asks for its end, and ends it when it has not come within the grace. A cancel overrules a pause."""
        self.asked = StopReason.CANCEL if StopReason.CANCEL in (self.asked, reason) else reason
        if self._killer is not None:
            self._killer.cancel()
        grace_s = GRACE_S[self.asked] if grace_s is None else grace_s
        self._killer = asyncio.get_running_loop().call_later(grace_s, self._kill)
        if self._child is not None:
            self._child.stop(self.asked)

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _note(self, message: FromChild, record: JobRecord) -> None:
        progress = record.job.progress
        match message:
            case Staged(name=name):
                self._pace = Pace()
                record.progress(replace(progress, stage=name, step=0, total=None, rate=None, time_left_s=None))
                record.tell("stage", name)
            case Progressed(step=step, total=total, unit=unit, metrics=metrics):
                self._pace.note(time.monotonic(), step)
                rate, left_s = self._pace.rate, self._pace.time_left_s(total)
                known = {**progress.metrics, **metrics}
                record.progress(Progress(progress.stage, step, total, unit, rate, left_s, known))
                if metrics or step == total or time.monotonic() - self._told_s >= TELL_EVERY_S:
                    self._told_s = time.monotonic()
                    data = {"step": step, "total": total, "unit": unit, "rate": rate, "time_left_s": left_s, "metrics": metrics}
                    record.tell("progress", data=data)
            case Said(text=text, level=level):
                record.tell("message", text, level=level)
            case Checkpointed(step=step, path=path, metrics=metrics):
                self.has_checkpoint = True
                record.tell("checkpoint", f"A checkpoint of step {step}.", data={"step": step, "path": path, "metrics": metrics})
