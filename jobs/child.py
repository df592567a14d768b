"""The process of one job, `python -m jobs.child TASKS`: runs a task as stdin says, and writes to stdout what becomes of it.

Owns how a task's exceptions are described. Ends at once when the daemon is gone. Everything
that libraries print goes to stderr, which is the job's log. TASKS: the name of a `TaskModule`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import numpy as np
import psutil
from pydantic import ValidationError

from jobs.fields import Reference, ReferenceKind
from jobs.kinds import task_module
from jobs.messages import (
    Ended,
    Failed,
    Finished,
    Planned,
    Refused,
    Start,
    Stop,
    TerminalMessage,
)
from jobs.process_limits import lower_priority
from jobs.reporter import FrameReporter
from jobs.task import InvalidJob, JobFailure, JobKind, Outcome, Plan, Stopped, StopReason, Task, TaskContext, problems_of
from model_registry.disk import storage_failure
from model_registry.errors import (
    ModelNotFound,
    NotWritable,
    OutOfDisk,
    RegistryBusy,
    RegistryError,
    SourceUnavailable,
    UnloadableModel,
    UnsupportedModel,
)
from model_registry.registry import Registry, open_registry
from model_registry.staging import hold
from model_registry.telemetry import turn_off_telemetry
from runtime.protocol.framing import FrameWriter, read_frame
from runtime.worker.threads import start_thread

_GONE = 3  # exit code when the daemon is gone
_REGISTRY_CODES = {
    ModelNotFound: "model_not_found",
    UnsupportedModel: "unsupported_model",
    UnloadableModel: "unloadable_model",
    NotWritable: "not_writable",
}
T = TypeVar("T")
_DECODER = msgspec.msgpack.Decoder(Start | Stop)


def main(tasks: str) -> int:
    os.umask(0o077)
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the daemon decides, also when ctrl-C reaches us both
    frames = FrameWriter(stdout)
    body = read_frame(sys.stdin.buffer)
    if body is None:
        return _GONE
    start = _DECODER.decode(body)
    assert isinstance(start, Start)
    reporter = FrameReporter(frames, Path(start.folder))
    start_thread("listener", lambda: _listen(sys.stdin.buffer, reporter))
    turn_off_telemetry()
    is_idle = start.kind != JobKind.PULL  # which somebody waits for
    lower_priority(start.plan_memory_bytes if start.plan else start.memory_bytes, is_idle=is_idle)
    last = _run(tasks, start, reporter)
    reporter.close()
    frames.write(last)
    return 0


def _listen(stdin: BinaryIO, reporter: FrameReporter) -> None:
    """Waits until the daemon has ended; then this process is not needed any more."""
    while (body := read_frame(stdin)) is not None:
        message = _DECODER.decode(body)
        if isinstance(message, Stop):
            reporter.stop = StopReason(message.reason)
    os._exit(_GONE)


def _run(tasks: str, start: Start, reporter: FrameReporter) -> TerminalMessage:
    try:
        with open_registry(Path(start.home)) as registry:
            module = task_module(tasks)
            module.prepare_process()
            return _work(module.task_for(JobKind(start.kind)), start, registry, reporter)
    except Exception as error:
        traceback.print_exc()
        return terminal_message(error, start)


def _work(task: Task, start: Start, registry: Registry, reporter: FrameReporter) -> TerminalMessage:
    try:
        params = task.params.model_validate(start.params)
    except ValidationError as error:
        return Refused(problems=tuple(problems_of(error)))
    context = TaskContext(
        job=start.job,
        registry=registry,
        folder=Path(start.folder),
        reporter=reporter,
        attempt=start.attempt,
        threads=start.threads or psutil.cpu_count(logical=False) or 1,
        memory_bytes=start.memory_bytes,
        offline=start.offline,
        grants=start.grants,
    )
    hold_versions(task.params.references(start.params), registry)
    if start.plan:
        return Planned(plan=_plain(task.plan(params, context), Plan))
    outcome = _plain(task.run(params, context), Outcome)
    shutil.rmtree(context.planned, ignore_errors=True)  # of no use any more
    return Finished(outcome=outcome)


def hold_versions(references: Iterable[Reference], registry: Registry) -> None:
    """Keeps versions that the params name from being removed while this process works with them."""
    for each in references:
        if each.kind is ReferenceKind.VERSION:
            with contextlib.suppress(RegistryError):
                for variant in registry.resolve(each.name).variants:
                    hold(variant.folder)


def _plain(value: T, kind: type[T]) -> T:
    """Converts a value to what frames and JSON can carry. Raises TypeError for other values."""
    return msgspec.convert(msgspec.to_builtins(value, enc_hook=_as_builtin), kind)


def _as_builtin(value: Any) -> Any:
    """Read-only mappings, and NumPy's numbers."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a task's result holds a {type(value).__name__}, which is no JSON value")


def terminal_message(error: BaseException, start: Start) -> TerminalMessage:
    """The message for an exception of a task: what was wrong, what to do, and whether another attempt may help."""
    if isinstance(error, Stopped):
        return Ended()
    if isinstance(error, InvalidJob):
        return Refused(problems=error.problems)
    if isinstance(error, JobFailure):
        return Failed(code=error.code, message=error.message, retryable=error.retryable)
    if isinstance(error, OSError):
        error = storage_failure(error, Path(start.folder), 1 << 20, "the job's work") or error
    if isinstance(error, OutOfDisk):
        return Failed(code="out_of_disk", message="The disk is full. Free some space, then create the job again.")
    if isinstance(error, RegistryBusy):
        return Failed(code="registry_busy", message=error.message, retryable=True)
    if isinstance(error, SourceUnavailable):
        return Failed(code="source_unavailable", message=error.message, retryable=True)
    if isinstance(error, RegistryError):
        code = next((code for kind, code in _REGISTRY_CODES.items() if isinstance(error, kind)), "registry_error")
        return Failed(code=code, message=error.message)
    if _is_out_of_memory(error) and start.plan:
        most = f"the {(start.plan_memory_bytes or 0) >> 20} MiB that it may take"
        return Failed(
            code="out_of_memory",
            message=f"Planning needs more memory than {most}. Give it less data, or raise jobs.plan_memory_limit.",
        )
    if _is_out_of_memory(error):
        advice = "Lower batch_size or max_length, choose a smaller model, or raise jobs.memory_limit."
        return Failed(code="out_of_memory", message=f"The job needs more memory than it may take. {advice}")
    if isinstance(error, ModuleNotFoundError):
        advice = "Install what jobs need with `pip install 'slmops[tune]'`, then create the job again."
        return Failed(code="missing_package", message=f"The package {error.name} is not installed. {advice}")
    if start.plan:
        return Failed(code="internal_error", message=f"Planning failed with {type(error).__name__}.")
    return Failed(code="internal_error", message=f"The task failed with {type(error).__name__}; the job's log has the details.")


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate" in text and "memory" in text)


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stderr.flush()
    os._exit(code)  # the thread that listens holds stdin, and libraries that hang at their end would keep the job open
