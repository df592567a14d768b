"""Inquiries to a worker's tokenizer, at both ends of the pipe: answered beside the engine, refused, withdrawn, or lost with the
worker.
"""

from __future__ import annotations

import io
import threading

import msgspec
import pytest

from runtime.engines.fake import build_fake_engine
from runtime.pool.local import LocalWorkers
from runtime.protocol.errors import FailureKind
from runtime.protocol.framing import FrameWriter, read_frame
from runtime.protocol.messages import Abort, Detokenize, Detokenized, Drain, EngineOptions, StepReport, Tokenize, Tokenized
from runtime.protocol.request import TextPrompt
from runtime.worker.main import Worker
from tests.doubles.event_loops import LOOPS, run
from tests.doubles.worker_pipe import LOAD, WORKER, chat_request, run_worker

pytestmark = pytest.mark.api


def tokens_of(text: str, number: int = 2) -> Tokenize:
    return Tokenize(request=number, prompt=TextPrompt(text=text))


# ---- the worker, with frames written by the test ----


def test_what_is_sent_to_the_tokenizer_is_answered_or_refused() -> None:
    received, printed, code = run_worker(
        WORKER, LOAD, tokens_of("ab"), Detokenize(request=3, token_ids=[97]), Detokenize(request=4, token_ids=[999]), Drain()
    )
    assert [message for message in received if isinstance(message, Tokenized | Detokenized)] == [
        Tokenized(request=2, token_ids=[97, 98], tokens=[b"a", b"b"], context_length=8192),
        Detokenized(request=3, text="a"),
    ]
    (report,) = [message for message in received if isinstance(message, StepReport)]
    (failed,) = report.failed
    assert (failed.request, failed.kind, failed.field) == (4, FailureKind.INVALID_REQUEST, "token_ids")
    assert (printed, code) == (b"", 0)


class _Frames(io.BytesIO):
    """Sets an event when the first frame has been written."""

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


@pytest.mark.parametrize("loop", LOOPS)
def test_the_tokenizer_answers_while_a_step_takes_its_time(loop: str) -> None:
    async def scenario() -> None:
        worker = await LocalWorkers()("fake:1", LOAD)
        slow = worker.submit(chat_request("[[endless]][[delay: 600]]", 1))
        await anext(slow)  # its prompt is computed; the next step lasts for minutes
        answer = await worker.inquire(tokens_of("ab", 2))
        assert isinstance(answer, Tokenized)
        assert answer.token_ids == [97, 98]
        assert worker.num_open == 1
        worker.kill()
        await worker.reap()

    run(scenario, loop)
