"""One attempt at a job: its process from start to end, and what it reported on the way. Decides nothing of what follows."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jobs.child_process import ChildProcess
from jobs.lifecycle import AttemptEnd
from jobs.messages import Checkpointed, Failed, FromChild, LogMessage, Progressed, Staged, Start, TerminalMessage
from jobs.record import JobRecord
from jobs.task import JobKind, StopReason
from model_registry.errors import NotWritable, OutOfDisk

EVENT_EVERY_S = 2.0  # of a progress without figures, as an event
GRACE_S: Mapping[StopReason, float] = {StopReason.CANCEL: 0.8, StopReason.PAUSE: 120.0}
PAUSE_GRACE_S: Mapping[str, float] = {JobKind.PULL: 1.5}  # of kinds that lose nothing when they are killed, by kind
WINDOW_S = 60.0


class Attempt:
    """record: where its progress goes; None: nowhere. stop_reason: why its end was requested. has_checkpoint: it left one.

    is_settled: set by its owner once what follows from its end is done.
    """

    def __init__(self, record: JobRecord | None, start: Start, log: Path, tasks: str) -> None:
        self._record = record
        self._start = start
        self._log = log
        self._tasks = tasks
        self._pace = Pace()
        self._event_s = float("-inf")
        self._child: ChildProcess | None = None
        self._killer: asyncio.TimerHandle | None = None
        self.stop_reason: StopReason | None = None
        self.has_checkpoint = False
        self.is_settled = asyncio.Event()

    async def run(self) -> AttemptEnd:
        """Runs until the process has ended. When cancelled, kills the process."""
        try:
            self._child = child = await ChildProcess.start(self._start, self._log, self._tasks)
        except OSError as error:
            why = f"The job's process cannot be started: {error.strerror}. Free some disk space and memory."
            return AttemptEnd(Failed(code="not_started", message=why, retryable=True), -1)
        except OutOfDisk as error:
            return AttemptEnd(Failed(code="out_of_disk", message=error.message), -1)
        except NotWritable as error:
            return AttemptEnd(Failed(code="not_writable", message=error.message), -1)
        last: TerminalMessage | None = None
        try:
            if self.stop_reason is not None:
                child.stop(self.stop_reason)
            async for message in child.messages():
                if not isinstance(message, Staged | Progressed | LogMessage | Checkpointed):
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
        return AttemptEnd(last, code)

    def stop(self, reason: StopReason, grace_s: float | None = None) -> None:
        """Requests its end, and kills it when that has not come within the grace, in seconds. A cancel overrules a pause."""
        self.stop_reason = StopReason.CANCEL if StopReason.CANCEL in (self.stop_reason, reason) else reason
        if self._killer is not None:
            self._killer.cancel()
        grace_s = self._default_grace_s(self.stop_reason) if grace_s is None else grace_s
        self._killer = asyncio.get_running_loop().call_later(grace_s, self._kill)
        if self._child is not None:
            self._child.stop(self.stop_reason)

    def _default_grace_s(self, reason: StopReason) -> float:
        is_pause = reason is StopReason.PAUSE
        return PAUSE_GRACE_S.get(self._start.kind, GRACE_S[reason]) if is_pause else GRACE_S[reason]

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def _note(self, message: FromChild, record: JobRecord) -> None:
        progress = record.job.progress
        match message:
            case Staged(name=name, number=number, total=total):
                self._pace = Pace()
                begun = replace(progress, stage=name, step=0, total=None, unit="steps", rate=None, time_left_s=None)
                record.progress(replace(begun, stage_number=number, num_stages=total))
                record.add_event("stage", name, data={"number": number, "total": total})
            case Progressed(step=step, total=total, unit=unit, metrics=metrics):
                self._pace.note(time.monotonic(), step)
                rate, left_s = self._pace.rate, self._pace.time_left_s(total)
                known = {**progress.metrics, **metrics}
                now = replace(progress, step=step, total=total, unit=unit, rate=rate, time_left_s=left_s, metrics=known)
                record.progress(now)
                if metrics or step == total or time.monotonic() - self._event_s >= EVENT_EVERY_S:
                    self._event_s = time.monotonic()
                    data = {"step": step, "total": total, "unit": unit, "rate": rate, "time_left_s": left_s, "metrics": metrics}
                    record.add_event("progress", data=data)
            case LogMessage(text=text, level=level):
                record.add_event("message", text, level=level)
            case Checkpointed(step=step, path=path, metrics=metrics):
                self.has_checkpoint = True
                record.add_event(
                    "checkpoint", f"A checkpoint of step {step}.", data={"step": step, "path": path, "metrics": metrics}
                )


class Pace:
    """Steps a second over the last minute. A stage that restarts its count, and a pause, begin a new measurement."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, step: int) -> None:
        if self._seen and step < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((now_s, step))
        while len(self._seen) > 2 and self._seen[1][0] < now_s - WINDOW_S:
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """None until two steps have been seen at different times."""
        if not self._seen:
            return None
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last > first and last_s > first_s else None

    def time_left_s(self, total: int | None) -> float | None:
        rate = self.rate
        return None if rate is None or total is None else max(0.0, (total - self._seen[-1][1]) / rate)
