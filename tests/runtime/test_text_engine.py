"""The engine that gives each request a thread, with answers that the test dictates: its end, its queue, its memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

from model_registry.records import Capability
from runtime.batching.intake import Intake
from runtime.batching.sequence import ResolvedParams
from runtime.engines.fake import VOCAB_SIZE, ByteTokenizer
from runtime.engines.foundry.text_engine import HUNG_S, TextEngine
from runtime.engines.foundry.text_intake import Answered, TextIntake
from runtime.engines.model_folder import GenerationDefaults
from runtime.engines.protocol import EngineBroken
from runtime.protocol.errors import FailureKind, InvalidRequest
from runtime.protocol.events import FinishReason
from runtime.protocol.messages import EngineOptions, ModelInfo
from runtime.protocol.request import SamplingParams
from tests.doubles.engine_bench import Clock, EngineBench, text


class Dictated:
    """An answer of the pieces that the test puts: `sent` pieces, then an Answered or an exception."""

    def __init__(self) -> None:
        self.script: queue.SimpleQueue[str | Answered | BaseException] = queue.SimpleQueue()
        self.is_cancelled = threading.Event()

    def run(self, on_text: Callable[[str], None]) -> Answered:
        while True:
            match self.script.get():
                case str() as piece:
                    on_text(piece)
                case Answered() as end:
                    return end
                case error:
                    raise error

    def cancel(self) -> None:
        self.is_cancelled.set()


class DictatedModel:
    def __init__(self) -> None:
        self.answers: list[Dictated] = []
        self.is_closed = False

    def check(self, requested: SamplingParams) -> None:
        """Takes everything."""

    def answer(self, text: str, params: ResolvedParams) -> Dictated:
        self.answers.append(Dictated())
        return self.answers[-1]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def model() -> DictatedModel:
    return DictatedModel()


END_OF_ANSWER = Answered(FinishReason.STOP, 3, 5)


def dictated_bench(
    model: DictatedModel, *, kv_budget_bytes: int = 1 << 30, num_slots: int = 2, max_waiting: int = 1
) -> EngineBench:
    info = ModelInfo(
        engine="dictated",
        provider="none",
        architecture="none",
        context_length=64,
        vocab_size=VOCAB_SIZE,
        num_slots=num_slots,
        threads=1,
        kv_bytes_per_token=10,
        capabilities=frozenset({Capability.COMPLETION}),
        load_s=0.0,
        resident_bytes=0,
        pid=1,
    )
    clock = Clock()
    intake = Intake(ByteTokenizer(), None, defaults=GenerationDefaults(), context_length=64, vocab_size=VOCAB_SIZE, clock=clock)
    options = EngineOptions(num_slots=num_slots, max_waiting=max_waiting)
    return EngineBench(
        TextEngine(
            info, model, TextIntake(intake), options, kv_budget_bytes=kv_budget_bytes, resident_bytes=lambda: 7, clock=clock
        ),
        clock,
    )


def until_started(bench: EngineBench, number: int) -> None:
    while bench.outcomes[number].started is None:
        bench.step()


def until_reported(bench: EngineBench, number: int, pieces: int) -> None:
    while len(bench.outcomes[number].pieces) < pieces:
        bench.step()


def test_a_stop_string_across_pieces_ends_the_answer_and_cancels_the_rest(model: DictatedModel) -> None:
    bench = dictated_bench(model)
    number = bench.submit(text("abc"), stop=("lo wo",))
    bench.step()
    for piece in ("Hel", "lo", " wo", "rld"):
        model.answers[0].script.put(piece)
    bench.run()
    outcome = bench.outcomes[number]
    assert (outcome.text, outcome.end.stop) == ("Hel", "lo wo")
    assert outcome.end.usage.prompt_tokens == 3
    assert outcome.end.usage.completion_tokens == len("Hello wo")
    assert model.answers[0].is_cancelled.is_set()
    model.answers[0].script.put(END_OF_ANSWER)
    bench.engine.close()
    assert model.is_closed


def test_what_only_began_a_stop_string_comes_out_at_the_end(model: DictatedModel) -> None:
    bench = dictated_bench(model)
    number = bench.submit(text("abc"), stop=("lot",))
    bench.step()
    for sent in ("Hel", "lo", END_OF_ANSWER):
        model.answers[0].script.put(sent)
    bench.run()
    outcome = bench.outcomes[number]
    assert (outcome.text, outcome.end.reason, outcome.end.usage.completion_tokens) == ("Hello", FinishReason.STOP, 5)
    bench.engine.close()


class Panic(BaseException):
    """As libraries written in Rust raise it: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError("a secret prompt"), Panic("a secret prompt")], ids=["an error", "a panic"])
def test_an_answer_that_breaks_fails_its_request_alone_and_quotes_nothing(
    model: DictatedModel, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    bench = dictated_bench(model)
    broken, whole = bench.submit(text("abc")), bench.submit(text("abc"))
    bench.step()
    model.answers[0].script.put(error)
    for sent in ("fine", END_OF_ANSWER):
        model.answers[1].script.put(sent)
    bench.run()
    failed = bench.outcomes[broken].failed
    assert failed is not None
    assert failed.kind is FailureKind.STEP_FAILED
    assert type(error).__name__ in failed.message
    assert "secret" not in failed.message + "".join(capsys.readouterr())
    assert bench.outcomes[whole].text == "fine"
    bench.engine.close()


def test_a_text_that_the_tokenizer_cannot_read_fails_its_request_alone(
    model: DictatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = dictated_bench(model)
    broken, whole = bench.submit(text("abc")), bench.submit(text("abc"))
    bench.step()
    encode = ByteTokenizer.encode

    def refuse(self: ByteTokenizer, text: str, *, add_special_tokens: bool) -> list[int]:
        if text == "unreadable":
            raise InvalidRequest("The model's tokenizer cannot read this text.", code="tokenizer_error")
        return encode(self, text, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(ByteTokenizer, "encode", refuse)
    model.answers[0].script.put("unreadable")
    model.answers[1].script.put("fine")
    for answer in model.answers:
        answer.script.put(END_OF_ANSWER)
    bench.run()
    failed = bench.outcomes[broken].failed
    assert failed is not None
    assert failed.code == "tokenizer_error"
    assert bench.outcomes[whole].text == "fine"
    bench.engine.close()


def test_a_cancelled_answer_keeps_its_slot_while_it_computes(model: DictatedModel) -> None:
    bench = dictated_bench(model, num_slots=1)
    gone = bench.submit(text("abc"))
    bench.step()
    bench.engine.remove(gone)
    waits = bench.submit(text("abc"))
    assert bench.step().started == []
    model.answers[0].script.put("late")
    model.answers[0].script.put(END_OF_ANSWER)
    while bench.outcomes[waits].started is None:
        bench.step()
    assert bench.outcomes[gone].pieces == []
    for sent in ("now", END_OF_ANSWER):
        model.answers[1].script.put(sent)
    bench.run()
    assert bench.outcomes[waits].text == "now"
    bench.engine.close()


def test_a_request_waits_while_others_reserve_the_memory(model: DictatedModel) -> None:
    reserved = (3 + 10) * 10  # tokens of prompt and longest answer, bytes of a token
    bench = dictated_bench(model, kv_budget_bytes=reserved + reserved - 1)
    first, second = bench.submit(text("abc"), max_tokens=10), bench.submit(text("abc"), max_tokens=10)
    assert [started.request for started in bench.step().started] == [first]
    stats = bench.engine.stats()
    assert (stats.num_running, stats.num_waiting, stats.kv_bytes, stats.resident_bytes) == (1, 1, reserved, 7)
    model.answers[0].script.put(END_OF_ANSWER)
    while bench.outcomes[second].started is None:
        bench.step()
    model.answers[1].script.put(END_OF_ANSWER)
    bench.run()
    bench.engine.close()


def test_a_deadline_passes_while_an_answer_computes(model: DictatedModel) -> None:
    bench = dictated_bench(model)
    number = bench.submit(text("abc"), deadline_s=5.0)
    bench.step()
    bench.clock.now += 5.0
    bench.run()
    failed = bench.outcomes[number].failed
    assert failed is not None
    assert failed.code == "deadline_exceeded"
    assert model.answers[0].is_cancelled.is_set()
    model.answers[0].script.put(END_OF_ANSWER)
    bench.engine.close()


def test_a_cancelled_answer_that_never_ends_breaks_the_engine(model: DictatedModel) -> None:
    """Its slot is lost, and more would be: the worker must end."""
    bench = dictated_bench(model)
    number = bench.submit(text("abc"))
    bench.step()
    bench.engine.remove(number)
    bench.clock.now += HUNG_S
    bench.step()
    bench.clock.now += 1
    with pytest.raises(EngineBroken, match="has not ended for 300 s"):
        bench.step()
    model.answers[0].script.put(END_OF_ANSWER)
    bench.engine.close()


def test_requests_take_turns(model: DictatedModel) -> None:
    bench = dictated_bench(model, num_slots=1, max_waiting=2)
    flood = [bench.submit(text("abc"), group=1) for _ in range(2)]
    bench.step()
    chat = bench.submit(text("abc"))
    model.answers[0].script.put(END_OF_ANSWER)
    until_started(bench, chat)
    assert bench.outcomes[flood[1]].started is None
    model.answers[1].script.put(END_OF_ANSWER)
    until_started(bench, flood[1])
    model.answers[2].script.put(END_OF_ANSWER)
    bench.run()
    bench.engine.close()


def test_a_full_queue_refuses_the_request_with_the_most_waiting(model: DictatedModel) -> None:
    bench = dictated_bench(model, num_slots=1, max_waiting=2)
    running = bench.submit(text("abc"))
    bench.step()
    flood = [bench.submit(text("abc"), group=9) for _ in range(2)]
    chat = bench.submit(text("abc"))
    assert [failed.request for failed in bench.step().failed] == flood
    model.answers[0].script.put(END_OF_ANSWER)
    until_started(bench, chat)
    assert bench.outcomes[running].finished is not None
    model.answers[1].script.put(END_OF_ANSWER)
    bench.run()
    bench.engine.close()
