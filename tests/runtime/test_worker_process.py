"""Both ends of the pipe between gateway and worker, where the other end misbehaves."""

from __future__ import annotations

import asyncio
import sys
from typing import BinaryIO, cast

import psutil
import pytest

from runtime.pool.local import LocalWorker, LocalWorkers
from runtime.pool.watchdog import Patience
from runtime.pool.worker_pipe import WorkerPipe
from runtime.protocol.errors import EngineDead, NotReady
from runtime.protocol.framing import Encoder, read_frame
from runtime.protocol.messages import Drain, EngineOptions, Load, LoadFailed, Ready, Stats, StepReport
from tests.doubles.event_loops import LOOPS, run
from tests.doubles.worker_pipe import LOAD, WORKER, chat_request, run_worker, start_worker

pytestmark = pytest.mark.api


def test_a_drained_worker_finishes_its_work_and_ends() -> None:
    received, _, code = run_worker(WORKER, LOAD, chat_request("[[count: 30]]"), Drain())
    reports = [message for message in received if isinstance(message, StepReport)]
    assert isinstance(received[0], Ready)
    assert received[0].info.engine == "fake"
    assert sum(len(report.finished) for report in reports) == 1
    assert code == 0


def test_statistics_are_sent_when_the_work_is_done() -> None:
    received, _, _ = run_worker(WORKER, LOAD, chat_request("[[count: 3]]"), Drain())
    stats = [message for message in received if isinstance(message, Stats)]
    assert stats
    assert stats[0].resident_bytes > 0


def test_the_end_of_the_input_ends_the_worker() -> None:
    received, _, code = run_worker(WORKER, LOAD)
    assert code == 0
    assert [type(message) for message in received[:1]] in ([], [Ready])


def test_an_input_that_ends_before_the_load_ends_the_worker() -> None:
    assert run_worker(WORKER) == ([], b"", 0)


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
import os, runtime.worker.main as worker
build = worker.build_engine
def noisy(load):
    print("a library greets", flush=True)
    os.write(1, b"a native library greets\\n")
    return build(load)
worker.build_engine = noisy
worker.main()
"""
    received, printed, _ = run_worker(["-c", program], LOAD, chat_request("Hello"), Drain())
    assert isinstance(received[0], Ready)
    assert b"a library greets" in printed
    assert b"a native library greets" in printed


def test_a_load_that_fails_is_reported() -> None:
    received, printed, _ = run_worker(WORKER, Load(engine="onnx", folder="/nowhere", options=EngineOptions()))
    (failed,) = received
    assert isinstance(failed, LoadFailed)
    assert "genai_config.json is missing" in failed.message
    assert b"Traceback" in printed


# ---- the gateway's end, with impostors for workers ----


async def impostor(program: str) -> LocalWorker:
    """What the pool gets for a worker that is this program."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    return await LocalWorker.attach(WorkerPipe(process), "impostor:1", Patience())


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
        before = set(psutil.Process().children())
        with pytest.raises(NotReady, match="ended while loading") as failed:
            await impostor(f"import sys; {program}")
        assert failed.value.code == "load_failed"
        assert set(psutil.Process().children()) <= before

    run(scenario)


def test_one_that_begins_with_another_message_is_ended() -> None:
    program = """
import sys
from runtime.protocol.framing import Encoder
from runtime.protocol.messages import Detokenized
sys.stdout.buffer.write(Encoder().frame(Detokenized(request=1, text="")))
sys.stdout.flush()
sys.stdin.buffer.read()
"""

    async def scenario() -> None:
        with pytest.raises(NotReady, match="unexpected first message") as failed:
            await impostor(program)
        assert failed.value.code == "load_failed"

    run(scenario)


def test_a_process_that_cannot_be_started_is_a_load_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with pytest.raises(NotReady, match="No worker can be started for fake:1") as failed:
            await LocalWorkers()("fake:1", LOAD)
        assert failed.value.code == "load_failed"

    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    run(scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_one_that_breaks_its_stream_is_ended_with_its_requests(loop: str) -> None:
    program = """
import sys
from runtime.protocol.framing import Encoder
from runtime.protocol.messages import ModelInfo, Ready
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
        exits: list[str] = []
        worker.watch(on_exit=lambda: exits.append("exit"), on_finished=lambda: None)
        generation = worker.submit(chat_request("Hello", 1))
        with pytest.raises(EngineDead):
            await anext(generation)
        await worker.reap()
        assert exits == ["exit"]
        with pytest.raises(EngineDead):
            worker.submit(chat_request("again", 2))

    run(scenario, loop)
