"""What a worker's tokenizer is asked, at both ends of the pipe: answered beside the engine, refused, withdrawn, or lost with it."""

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
from tests.doubles.worker_pipe import LOAD, WORKER, saying, told

pytestmark = pytest.mark.api


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


@pytest.mark.parametrize("loop", LOOPS)
def test_the_tokenizer_answers_while_a_step_takes_its_time(loop: str) -> None:
    async def scenario() -> None:
        worker = await LocalWorkers()("fake:1", LOAD)
        slow = worker.submit(saying("[[endless]][[delay: 600]]", 1))
        await anext(slow)  # its prompt is computed; the next step lasts for minutes
        answer = await worker.inquire(tokens_of("ab", 2))
        assert isinstance(answer, Tokenized)
        assert answer.token_ids == [97, 98]
        assert worker.num_open == 1
        worker.kill()
        await worker.reap()

    run(scenario, loop)
