"""What a worker's tokenizer is asked, at both ends of the pipe: answered beside the engine, refused, withdrawn, or lost with it."""

from __future__ import annotations

import asyncio
import io
import threading

import msgspec
import pytest
from event_loops import LOOPS, run
from test_worker_process import LOAD, WORKER, saying, told

from runtime.engines.fake import build_fake_engine
from runtime.errors import EngineDead, FailureKind, InvalidRequest, NotReady
from runtime.framing import FrameWriter, read_frame
from runtime.inquiries import Answer, Inquiry
from runtime.messages import Abort, Detokenize, Detokenized, Drain, EngineOptions, StepReport, Tokenize, Tokenized
from runtime.request import TextPrompt
from runtime.worker import Worker
from runtime.worker_process import WorkerProcess


def tokens_of(text: str, number: int = 2) -> Tokenize:
    return Tokenize(request=number, prompt=TextPrompt(text=text))


# ---- the worker, told by hand ----


def test_what_the_tokenizer_is_asked_is_answered_or_refused() -> None:
    said, printed, code = told(
        WORKER, LOAD, tokens_of("ab"), Detokenize(request=3, token_ids=[97]), Detokenize(request=4, token_ids=[999]), Drain()
    )
    assert [message for message in said if isinstance(message, Tokenized | Detokenized)] == [
        Tokenized(request=2, token_ids=[97, 98], tokens=[b"a", b"b"], context_length=8192),
        Detokenized(request=3, text="a"),
    ]
    (report,) = [message for message in said if isinstance(message, StepReport)]
    (failed,) = report.failed
    assert (failed.request, failed.kind, failed.field) == (4, FailureKind.INVALID_REQUEST, "token_ids")
    assert (printed, code) == (b"", 0)


class _Frames(io.BytesIO):
    """Says when the first frame has been written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def flush(self) -> None:
        self.written.set()


def test_an_aborted_question_is_not_answered() -> None:
    output = _Frames()
    worker = Worker(build_fake_engine(EngineOptions()), FrameWriter(output))
    for message in (tokens_of("ab", 1), Abort(request=1), tokens_of("cd", 2)):
        worker.receive(message)
    threading.Thread(target=worker.intake.of_texts.run, daemon=True).start()
    assert output.written.wait(30)
    output.seek(0)
    body = read_frame(output)
    assert body is not None
    assert msgspec.msgpack.decode(body, type=Tokenized).request == 2


# ---- the gateway's end ----


async def started() -> WorkerProcess:
    worker = await WorkerProcess.start(LOAD, "fake:1")
    await worker.wait_ready()
    return worker


def asking(worker: WorkerProcess, text: str = "ab") -> asyncio.Task[Answer]:
    def make(number: int) -> Inquiry:
        return tokens_of(text, number)

    return asyncio.create_task(worker.ask(make))


async def drained(worker: WorkerProcess) -> None:
    worker.drain()
    await worker.reap()


@pytest.mark.parametrize("loop", LOOPS)
def test_the_tokenizer_answers_while_a_step_takes_its_time(loop: str) -> None:
    async def scenario() -> None:
        worker = await started()
        slow = worker.submit(lambda number: saying("[[endless]][[delay: 600]]", number))
        await anext(slow)  # its prompt is computed; the next step lasts for minutes
        answer = await asking(worker)
        assert isinstance(answer, Tokenized)
        assert answer.token_ids == [97, 98]
        assert worker.num_open == 1
        worker.kill()
        await worker.reap()

    run(scenario, loop)


def test_what_a_worker_was_asked_before_it_drains_is_answered() -> None:
    async def scenario() -> None:
        worker = await started()
        asked = [asking(worker) for _ in range(5)]
        await asyncio.sleep(0)
        assert worker.num_open == 5
        await drained(worker)
        assert [type(await each) for each in asked] == [Tokenized] * 5

    run(scenario)


def test_a_refused_question_leaves_nothing_open() -> None:
    async def scenario() -> None:
        worker = await started()
        with pytest.raises(InvalidRequest, match="outside the vocabulary") as refused:
            await worker.ask(lambda number: Detokenize(request=number, token_ids=[999]))
        assert refused.value.field == "token_ids"
        with pytest.raises(InvalidRequest, match="cannot be passed"):
            await asking(worker, "\ud800")
        assert worker.num_open == 0
        await drained(worker)

    run(scenario)


def test_who_stops_asking_leaves_nothing_open() -> None:
    async def scenario() -> None:
        worker = await started()
        asked = asking(worker)
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert worker.num_open == 0
        assert isinstance(await asking(worker), Tokenized)  # the worker goes on
        await drained(worker)

    run(scenario)


def test_a_worker_that_dies_or_must_go_fails_what_it_was_asked() -> None:
    async def scenario() -> None:
        worker = await started()
        leaving = asking(worker)
        await asyncio.sleep(0)
        worker.fail_open(NotReady("leaving"))
        with pytest.raises(NotReady, match="leaving"):
            await leaving
        dying = asking(worker)
        await asyncio.sleep(0)
        worker.kill()
        with pytest.raises(EngineDead):
            await dying
        await worker.reap()
        with pytest.raises(EngineDead):
            await asking(worker)

    run(scenario)
