"""Both ends of the pipe between gateway and worker, where the other end misbehaves."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import pytest
from event_loops import LOOPS, run

from runtime.errors import EngineDead, InvalidRequest, NotReady
from runtime.framing import Encoder, read_frame
from runtime.messages import Drain, EngineOptions, FromWorker, Load, LoadFailed, Ready, Stats, StepReport, Submit
from runtime.request import ChatPrompt, TextPrompt
from runtime.watchdog import Patience
from runtime.worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
LOAD = Load(engine="fake", folder="", options=EngineOptions(num_slots=2))


def saying(said: str, number: int = 1) -> Submit:
    return Submit(request=number, prompt=ChatPrompt(messages=[{"role": "user", "content": said}]))


# ---- the worker, told by hand ----


def start_worker(program: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def told(program: list[str], *messages: object) -> tuple[list[FromWorker], bytes, int]:
    """Everything a worker says to these messages, what it printed, and its exit code. Without a Drain, its input ends."""
    encoder = Encoder()
    worker = start_worker(program)
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(b"".join(encoder.frame(message) for message in messages))
    worker.stdin.flush()
    output = worker.stdout.read() if any(isinstance(message, Drain) for message in messages) else b""
    rest, printed = worker.communicate(timeout=30)
    output += rest
    said, stream = [], io.BytesIO(output)
    while (body := read_frame(stream)) is not None:
        said.append(msgspec.msgpack.decode(body, type=FromWorker))
    assert stream.tell() == len(output)
    return said, printed, worker.returncode


WORKER = ["-m", "runtime.worker"]


def test_a_drained_worker_finishes_its_work_and_ends() -> None:
    said, _, code = told(WORKER, LOAD, saying("[[count: 30]]"), Drain())
    reports = [message for message in said if isinstance(message, StepReport)]
    assert isinstance(said[0], Ready)
    assert said[0].info.engine == "fake"
    assert sum(len(report.finished) for report in reports) == 1
    assert code == 0


def test_statistics_are_told_when_the_work_is_done() -> None:
    said, _, _ = told(WORKER, LOAD, saying("[[count: 3]]"), Drain())
    stats = [message for message in said if isinstance(message, Stats)]
    assert stats
    assert stats[0].resident_bytes > 0


def test_the_end_of_the_input_ends_the_worker() -> None:
    said, _, code = told(WORKER, LOAD)
    assert code == 0
    assert [type(message) for message in said[:1]] in ([], [Ready])


def test_an_input_that_ends_before_the_load_ends_the_worker() -> None:
    assert told(WORKER) == ([], b"", 0)


def test_garbage_for_input_ends_the_worker() -> None:
    """The frame is whole, but no message that a worker knows: nothing after it can be trusted."""
    worker = start_worker(WORKER)
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(Encoder().frame(LOAD))
        worker.stdin.flush()
        ready = read_frame(cast(BinaryIO, worker.stdout))
        assert ready is not None
        worker.stdin.write(Encoder().frame({"type": "unheard-of"}))
        worker.stdin.flush()
        assert worker.wait(timeout=20) != 0
    finally:
        worker.kill()
        worker.communicate()


def test_what_libraries_print_does_not_reach_the_frames() -> None:
    """From Python, and from below it, straight to the file descriptor."""
    program = """
import os, runtime.worker as worker
build = worker.build_engine
def noisy(load):
    print("a library greets", flush=True)
    os.write(1, b"a native library greets\\n")
    return build(load)
worker.build_engine = noisy
worker.main()
"""
    said, printed, _ = told(["-c", program], LOAD, saying("Hello"), Drain())
    assert isinstance(said[0], Ready)
    assert b"a library greets" in printed
    assert b"a native library greets" in printed


def test_a_load_that_fails_is_told() -> None:
    said, printed, _ = told(WORKER, Load(engine="onnx", folder="/nowhere", options=EngineOptions()))
    (failed,) = said
    assert isinstance(failed, LoadFailed)
    assert "genai_config.json is missing" in failed.message
    assert b"Traceback" in printed


# ---- the gateway's end, with impostors for workers ----


async def impostor(program: str) -> WorkerProcess:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    return WorkerProcess(process, "impostor:1", Patience())


@pytest.mark.parametrize(
    "program",
    [
        "",
        "sys.stdout.buffer.write(b'\\xff\\0\\0\\0abc')",
        "print('Welcome to this library!')",
        "print('Welcome to this library!', flush=True); sys.stdin.buffer.read()",
        "sys.stdout.buffer.write(b'\\x03\\0\\0\\0abc'); sys.stdout.flush(); sys.stdin.buffer.read()",
    ],
    ids=["nothing", "half a frame", "a print", "a print, and it stays", "no message, and it stays"],
)
def test_one_that_says_something_else_is_not_waited_for(program: str) -> None:
    async def scenario() -> None:
        worker = await impostor(f"import sys; {program}")
        with pytest.raises(NotReady, match="ended while loading"):
            await worker.wait_ready()
        await worker.reap()

    run(scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_one_that_breaks_its_stream_is_ended_with_its_requests(loop: str) -> None:
    program = """
import sys
from runtime.framing import Encoder
from runtime.messages import ModelInfo, Ready
info = ModelInfo(engine="x", provider="x", architecture="x", context_length=1, vocab_size=1, num_slots=1, threads=1,
                 kv_bytes_per_token=1, capabilities=frozenset(), load_s=0, resident_bytes=0, pid=0)
sys.stdout.buffer.write(Encoder().frame(Ready(info=info)))
sys.stdout.flush()
sys.stdin.buffer.read(1)
print("Welcome to this library!", flush=True)
sys.stdin.buffer.read()
"""

    async def scenario() -> None:
        worker = await impostor(program)
        exits: list[WorkerProcess] = []
        worker.on_exit = exits.append
        await worker.wait_ready()
        generation = worker.submit(lambda number: saying("Hello", number))
        with pytest.raises(EngineDead):
            await anext(generation)
        await worker.reap()
        assert exits == [worker]
        with pytest.raises(EngineDead):
            worker.submit(lambda number: saying("again", number))

    run(scenario, loop)


def test_a_request_that_cannot_be_sent_is_not_left_open() -> None:
    """Half a surrogate pair has no bytes in UTF-8."""

    async def scenario() -> None:
        worker = await WorkerProcess.start(LOAD, "fake:1")
        await worker.wait_ready()
        with pytest.raises(InvalidRequest, match="cannot be passed"):
            worker.submit(lambda number: Submit(request=number, prompt=TextPrompt(text="\ud800")))
        worker.drain()
        await worker.reap()

    run(scenario)
