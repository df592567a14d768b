"""What happens to a worker, and to its other requests, when the preparation of one request fails, hangs, or ends a thread."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from runtime.pool.local import LocalWorker
from runtime.pool.watchdog import Patience
from runtime.pool.worker_pipe import WorkerPipe
from runtime.protocol.errors import EngineDead, InvalidRequest
from runtime.protocol.messages import Abort, Drain, EngineOptions, Load, Ready, StepReport, Submit, Tokenize, Tokenized
from runtime.protocol.request import ChatPrompt, SamplingParams, TextPrompt
from runtime.worker.threads import FAILED
from tests.doubles.event_loops import run
from tests.doubles.pool_bench import text_of
from tests.doubles.synthetic_decoder import write_synthetic_decoder
from tests.doubles.worker_pipe import LOAD, ROOT, WORKER, chat_request, run_worker

pytestmark = pytest.mark.api

# How long this regex takes doubles with every A, until the library gives up with a panic.
PANICS, PANICKING_TEXT = "(A|AA)+$", "A" * 60 + "B"

INJECTED = """
import runtime.worker.main as worker
from runtime.engines.fake import build_fake_engine
from runtime.worker.intake import IntakeThread
from runtime.worker.threads import Pulse
class Lost(BaseException): pass
def fail(*_): raise Lost
{injection}
worker.main()
"""


def panicking_model(folder: Path) -> Load:
    write_synthetic_decoder(folder)
    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    split = pre_tokenizers.Split(Regex(PANICS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, tokenizer.pre_tokenizer])
    tokenizer.save(path)
    return Load(engine="onnx", folder=str(folder), options=EngineOptions(num_slots=2, threads=1))


def completing(text: str, number: int) -> Submit:
    return Submit(request=number, prompt=TextPrompt(text=text), params=SamplingParams(max_tokens=3, temperature=0.0))


def test_a_tokenizer_that_panics_fails_the_request_alone(tmp_path: Path) -> None:
    load = panicking_model(tmp_path / "model")
    bad = [completing(PANICKING_TEXT, 1), Tokenize(request=2, prompt=TextPrompt(text=PANICKING_TEXT))]
    good = [completing("B", 3), Tokenize(request=4, prompt=TextPrompt(text="B"))]
    received, _, code = run_worker(WORKER, load, *bad, *good, Drain())
    reports = [message for message in received if isinstance(message, StepReport)]
    failures = {failed.request: failed for report in reports for failed in report.failed}
    assert {(failed.kind, failed.code) for failed in failures.values()} == {("invalid_request", "tokenizer_error")}
    assert set(failures) == {1, 2}
    assert [finished.request for report in reports for finished in report.finished] == [3]
    assert [message.token_ids for message in received if isinstance(message, Tokenized)] == [[33]]
    assert code == 0


@pytest.mark.parametrize(
    ("thread", "injection"),
    [
        ("intake", "IntakeThread._prepare = fail"),
        ("pulse", "Pulse.beat = fail"),
        (
            "frames",
            "worker.Worker.receive = fail",
        ),
        ("main", "worker.Worker._step = fail"),
    ],
)
def test_a_thread_that_fails_ends_the_worker_at_once(thread: str, injection: str) -> None:
    received, printed, code = run_worker(
        ["-c", INJECTED.format(injection=injection)], LOAD, chat_request("[[endless]]"), chat_request("x", 2), Drain()
    )
    assert isinstance(received[0], Ready)
    assert code == FAILED
    assert b"Lost in " in printed, thread


def test_a_request_that_was_aborted_before_is_not_prepared() -> None:
    slow = """
import threading, time
aborted = threading.Event()
def prepare(self, submit, prepare=IntakeThread._prepare):
    if submit.request == 1: assert aborted.wait(20)
    return prepare(self, submit)
IntakeThread._prepare = prepare
def handle(self, work, report, handle=worker.Worker._handle):
    handle(self, work, report)
    if isinstance(work, worker.Abort): aborted.set()
worker.Worker._handle = handle
build = worker.build_engine
def counted(load):
    engine = build(load)
    prepare = engine.prepare
    def printed(submit):
        print("prepares", submit.request, flush=True)
        return prepare(submit)
    engine.prepare = printed
    return engine
worker.build_engine = counted
"""
    messages = (chat_request("a", 1), chat_request("b", 2), Abort(request=2), chat_request("c", 3), Drain())
    received, printed, code = run_worker(["-c", INJECTED.format(injection=slow)], LOAD, *messages)
    reports = [message for message in received if isinstance(message, StepReport)]
    assert [finished.request for report in reports for finished in report.finished] == [1, 3]
    assert printed.decode().splitlines() == ["prepares 1", "prepares 3"]
    assert code == 0


HANGS = """
import threading
def prepare(self, submit, prepare=IntakeThread._prepare):
    if "hang" in repr(submit.prompt): threading.Event().wait()
    return prepare(self, submit)
IntakeThread._prepare = prepare
"""


async def hanging_worker(patience: Patience) -> LocalWorker:
    pipe = asyncio.subprocess.PIPE
    program = ["-c", INJECTED.format(injection=HANGS)]
    process = await asyncio.create_subprocess_exec(sys.executable, *program, cwd=ROOT, stdin=pipe, stdout=pipe)
    frames = WorkerPipe(process)
    frames.send(LOAD)
    return await LocalWorker.attach(frames, "fake:1", patience)


@pytest.mark.parametrize("chat_hangs", [True, False])
def test_chats_and_texts_do_not_wait_for_each_other(chat_hangs: bool) -> None:
    async def scenario() -> None:
        worker = await hanging_worker(Patience())
        text, chat = TextPrompt(text="hang"), ChatPrompt(messages=[{"role": "user", "content": "hang"}])
        hangs = worker.submit(Submit(request=1, prompt=chat if chat_hangs else text))
        text, chat = TextPrompt(text="hi<|assistant|>"), ChatPrompt(messages=[{"role": "user", "content": "hi"}])
        other = worker.submit(Submit(request=2, prompt=text if chat_hangs else chat))
        assert await asyncio.wait_for(text_of(other), 30) == "You said: hi"
        worker.kill()
        with pytest.raises(EngineDead):
            await text_of(hangs)
        await worker.reap()

    run(scenario)


def test_a_preparation_without_end_costs_the_worker_but_only_its_request_is_refused() -> None:
    """It must not come back: clients send again what failed with 503, and not what failed with 400."""

    async def scenario() -> None:
        worker = await hanging_worker(Patience(step_s=0.2))
        sent = [Submit(request=1, prompt=TextPrompt(text="hang")), Submit(request=2, prompt=TextPrompt(text="other"))]
        culprit, other = await asyncio.gather(*map(text_of, map(worker.submit, sent)), return_exceptions=True)
        assert isinstance(culprit, InvalidRequest)
        assert culprit.code == "preparation_timeout"
        assert "preparation of a request took longer than 0.2 s" in culprit.message
        assert isinstance(other, EngineDead)
        assert "preparation" in await worker.reap()

    run(scenario)
