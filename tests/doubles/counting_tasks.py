"""A task that counts, in a real process: it leaves a checkpoint after each step, and misbehaves where its params say so."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from jobs.task import InvalidJob, JobFailure, JobKind, Outcome, Params, Plan, Problem, Stopped, Task, TaskContext


class CountingParams(Params):
    """steps: to count. gate: a file to wait for before the last step. kill_at, fail_at: a step, at the first attempt only.

    plan_note: where the plan's process writes its pid, and waits until it is ended. plan_hog_bytes, plan_crash: as of the run.
    """

    steps: int
    gate: str | None = None
    deaf: bool = False
    kill_at: int | None = None
    fail_at: int | None = None
    retryable: bool = True
    hog_bytes: int = 0
    crash: bool = False
    unsayable: bool = False
    plan_note: str | None = None
    plan_hog_bytes: int = 0
    plan_crash: bool = False
    disk_bytes: int | None = None


class Counting:
    kind: ClassVar[JobKind] = JobKind.FINETUNE
    params: ClassVar[type[Params]] = CountingParams

    def plan(self, params: CountingParams, context: TaskContext) -> Plan:
        if params.steps < 1:
            raise InvalidJob([Problem("there is nothing to count", param="steps", file="numbers.jsonl", line=3)])
        if params.plan_note is not None:
            Path(params.plan_note).write_text(str(os.getpid()))
            time.sleep(600)
        if params.plan_crash:
            raise ZeroDivisionError("a secret text of the data")
        bytearray(params.plan_hog_bytes)
        context.planned.mkdir()
        (context.planned / "note").write_text("planned")
        return Plan((f"Counts to {params.steps}.",), num_steps=params.steps, disk_bytes=params.disk_bytes)

    def run(self, params: CountingParams, context: TaskContext) -> Outcome:
        path = context.folder / "checkpoint.json"
        step, digest = json.loads(path.read_text()) if path.exists() else (0, "")
        planned = [each.read_text() for each in context.planned.glob("*")]
        context.stage("counting")
        if params.crash:
            raise ZeroDivisionError("a secret text of the data")
        if params.unsayable:
            return Outcome(details={"what": object()})
        hog = bytearray(params.hog_bytes)
        while step < params.steps:
            if params.gate is not None and step == params.steps - 1:
                self._wait(params, context)
            if context.attempt == 1 and step == params.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if context.attempt == 1 and step == params.fail_at:
                raise JobFailure("The wind blew. Try again.", code="wind", retryable=params.retryable)
            step += 1
            digest = hashlib.sha256(f"{digest}{step}".encode()).hexdigest()
            beside = path.with_suffix(".new")
            beside.write_text(json.dumps([step, digest]))
            beside.replace(path)
            context.reporter.checkpoint(step, path, {})
            context.progress(step, params.steps, loss=1 / step)
        metrics = MappingProxyType({"attempts": context.attempt, "hogged": np.float32(len(hog))})
        return Outcome(metrics=metrics, details={"digest": digest, "planned": planned})

    def _wait(self, params: CountingParams, context: TaskContext) -> None:
        assert params.gate is not None
        while not os.path.exists(params.gate):  # noqa: PTH110 - a mere name
            time.sleep(0.01)
            try:
                context.check()
            except Stopped:
                if not params.deaf:
                    raise


def task_for(kind: JobKind) -> Task:
    return Counting()


def prepare_process() -> None:
    pass
