"""A peer without a server: a child process that reads loads as JSON lines and answers each with a report.

The child calls `obey`; the parent starts it with `child`. Nothing else may be printed on the child's standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from jobs.tasks.benchmark.load import Load, LoadReport
from tests.benchmarks.peer import PeerFailed, Running

_STOP_TIMEOUT_S = 30.0
_FIRST = Load(num_requests=1, max_tokens=1, prompt_words=1)


@contextmanager
def child(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Running]:
    started = time.perf_counter()
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )

    def measure(load: Load) -> LoadReport:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(asdict(load)) + "\n")
            process.stdin.flush()
        except BrokenPipeError as error:
            raise PeerFailed(f"it ended by itself: {log.read_text(errors='replace')[-500:]}") from error
        return LoadReport(**json.loads(_line(process, log)))

    try:
        _line(process, log)
        ready_s = time.perf_counter() - started
        measure(_FIRST)
        yield Running(process.pid, ready_s, time.perf_counter() - started, measure)
    finally:
        process.stdin.close() if process.stdin else None
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close() if process.stdout else None


def obey(measure: Callable[[Load], LoadReport]) -> None:
    """The child's side: reports that it is ready, then measures each load it reads, until its input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what native libraries print is not an answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(measure(Load(**json.loads(line))))), file=answers, flush=True)


def _line(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise PeerFailed(f"it ended by itself: {log.read_text(errors='replace')[-500:]}")
    return line
