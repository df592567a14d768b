"""Generators in turn: their memory, what is kept of them, and what becomes of the others when one breaks. Scripted ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model_registry.records import Capability
from runtime.batching.engine import Limits
from runtime.batching.intake import Intake
from runtime.batching.sampler import Sampler
from runtime.engines.fake import EOS, VOCAB_SIZE, ByteTokenizer
from runtime.engines.genai.engine import GenaiEngine
from runtime.engines.genai.generators import GeneratorDecoder, GeneratorLimits, capacity_for
from runtime.engines.model_folder import GenerationDefaults
from runtime.protocol.errors import FailureKind, InvalidRequest, OverCapacity
from runtime.protocol.events import FinishReason
from runtime.protocol.messages import EngineOptions, ModelInfo
from runtime.protocol.request import TextPrompt
from tests.doubles.engine_bench import Clock, EngineBench, Outcome
from tests.doubles.scripted_constraints import PlanCompiler, planned

pytestmark = pytest.mark.model

CONTEXT = 4096
TOKEN_BYTES = 10
QUOTED = "the device is lost, and your secret with it"
SMALL = 512 * TOKEN_BYTES  # bytes of the smallest generator


@dataclass
class ScriptedGenerator:
    """The next token is the last one plus one. breaks_at: the token that it cannot take."""

    capacity: int
    can_rewind: bool = True
    breaks_at: int | None = None
    steered_to: int | None = None
    tokens: list[int] = field(default_factory=list)
    appended: list[int] = field(default_factory=list)  # how many at a time

    def append_tokens(self, tokens: NDArray[np.int32]) -> None:
        self.appended.append(len(tokens))
        if self.breaks_at in tokens.tolist():
            raise RuntimeError(QUOTED)
        self.tokens += tokens.tolist()
        assert len(self.tokens) <= self.capacity

    def get_logits(self) -> NDArray[np.float32]:
        logits = np.zeros((1, 1, VOCAB_SIZE), np.float32)
        logits[0, 0, self.tokens[-1] + 1] = 50.0
        return logits

    def set_logits(self, logits: NDArray[np.float32]) -> None:
        self.steered_to = int(logits.argmax())

    def generate_next_token(self) -> None:
        assert self.steered_to is not None, "not where tokens can be appended"
        self.tokens.append(self.steered_to)
        self.steered_to = None

    def rewind_to(self, length: int) -> None:
        if not self.can_rewind:
            raise RuntimeError("recurrent states cannot be rewound")
        del self.tokens[length:]


class Vendor:
    """Makes generators, and remembers them. breaks_at: of the next one."""

    def __init__(self, *, can_rewind: bool = True) -> None:
        self.made: list[ScriptedGenerator] = []
        self.can_rewind = can_rewind
        self.breaks_at: int | None = None
        self.is_full = False

    def create(self, capacity: int) -> ScriptedGenerator:
        if self.is_full:
            raise RuntimeError("no memory left")
        self.made.append(ScriptedGenerator(capacity, self.can_rewind, self.breaks_at))
        self.breaks_at = None
        return self.made[-1]


def bench_of(
    vendor: Vendor, *, kv_budget_bytes: int = 1 << 20, prefix_cache_bytes: int = 1 << 20, can_append: bool = True
) -> EngineBench:
    options = EngineOptions(num_slots=4, max_waiting=3)
    limits = Limits(options, kv_budget_bytes, frozenset({EOS}))
    clock = Clock()
    decoder = GeneratorDecoder(
        vendor.create,
        Sampler(limits.eos_ids),
        ByteTokenizer().token_bytes(skip_special_tokens=False),
        GeneratorLimits(CONTEXT, TOKEN_BYTES, kv_budget_bytes, prefix_cache_bytes, 0.1, can_append),
    )
    info = ModelInfo(
        engine="genai",
        provider="CPUExecutionProvider",
        architecture="scripted",
        context_length=CONTEXT,
        vocab_size=VOCAB_SIZE,
        num_slots=4,
        threads=1,
        kv_bytes_per_token=TOKEN_BYTES,
        capabilities=frozenset({Capability.COMPLETION}),
        load_s=0.0,
        resident_bytes=0,
        pid=1,
    )
    defaults = GenerationDefaults(temperature=0.0)
    intake = Intake(
        ByteTokenizer(),
        None,
        defaults=defaults,
        context_length=CONTEXT,
        vocab_size=VOCAB_SIZE,
        clock=clock,
        compiler=PlanCompiler(VOCAB_SIZE),
    )
    return EngineBench(GenaiEngine(info, decoder, intake, limits, resident_bytes=lambda: 0, clock=clock), clock)


def submit(bench: EngineBench, prompt: str, max_tokens: int = 5) -> int:
    return bench.submit(TextPrompt(text=prompt), max_tokens=max_tokens)


def answer(bench: EngineBench, prompt: str, max_tokens: int = 5) -> Outcome:
    number = submit(bench, prompt, max_tokens)
    bench.run()
    return bench.outcomes[number]


def test_who_breaks_fails_alone_and_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    vendor = Vendor()
    bench = bench_of(vendor)
    before = submit(bench, "a")
    bench.step()
    vendor.breaks_at = ord("z")
    broken = submit(bench, "x")
    bench.step()
    after = submit(bench, "k")
    bench.run()
    assert [bench.outcomes[number].text for number in (before, after)] == ["bcdef", "lmnop"]
    failed = bench.outcomes[broken].failed
    assert failed is not None
    assert (failed.kind, failed.code) == (FailureKind.STEP_FAILED, "step_failed")
    assert "RuntimeError" in failed.message
    assert "secret" not in failed.message + capsys.readouterr().err
    assert bench.engine.stats().kv_bytes == 2 * SMALL  # the broken one is not kept


def test_who_gets_no_memory_fails_alone() -> None:
    vendor = Vendor()
    bench = bench_of(vendor)
    runs = submit(bench, "a")
    bench.step()
    vendor.is_full = True
    fails = submit(bench, "x")
    bench.run()
    assert bench.outcomes[runs].text == "bcdef"
    failed = bench.outcomes[fails].failed
    assert failed is not None
    assert failed.kind is FailureKind.STEP_FAILED


def test_memory_admits_and_bounds() -> None:
    """Two fit; the third waits until one has gone."""
    bench = bench_of(Vendor(), kv_budget_bytes=2 * SMALL)
    numbers = [submit(bench, prompt) for prompt in "adg"]
    bench.step()
    assert (bench.engine.stats().num_running, bench.engine.stats().num_waiting) == (2, 1)
    while bench.engine.num_unfinished:
        assert bench.engine.stats().kv_bytes <= 2 * SMALL
        bench.step()
    assert [bench.outcomes[number].text for number in numbers] == ["bcdef", "efghi", "hijkl"]


def test_one_that_needs_more_than_the_budget_runs_alone() -> None:
    bench = bench_of(Vendor(), kv_budget_bytes=SMALL)
    assert answer(bench, "a" * 1000).text == "bcdef"


def test_the_queue_has_an_end() -> None:
    bench = bench_of(Vendor())
    for _ in range(4 + 3):
        submit(bench, "a")
    with pytest.raises(OverCapacity, match="at most 3"):
        submit(bench, "a")


def test_a_conversation_goes_on_in_its_generator() -> None:
    vendor = Vendor()
    bench = bench_of(vendor)
    prompt = "a long beginning"
    first = answer(bench, prompt)
    again = answer(bench, prompt + " that goes on")
    assert (first.end.usage.cached_tokens, again.end.usage.cached_tokens) == (0, len(prompt))
    assert again.text == "opqrs"
    assert len(vendor.made) == 1
    stats = bench.engine.stats()
    assert (stats.prefix_queries_total, stats.prefix_hits_total) == (len(prompt) * 2 + len(" that goes on"), len(prompt))


@pytest.mark.parametrize(("temperature", "reused"), [(0.0, len("abcdef")), (1.0, len("abcdefghij"))])
def test_an_answer_that_must_be_repeatable_reuses_prompts_only(temperature: float, reused: int) -> None:
    """A token computed alone differs in its last bits from the same token computed in a prompt."""
    bench = bench_of(Vendor())
    assert answer(bench, "abcdef").text == "ghijk"
    number = bench.submit(TextPrompt(text="abcdefghij and on"), max_tokens=2, temperature=temperature)
    bench.run()
    assert bench.outcomes[number].end.usage.cached_tokens == reused


def test_a_generator_too_small_for_what_follows_is_not_used() -> None:
    vendor = Vendor()
    bench = bench_of(vendor)
    answer(bench, "a" * 400)
    assert answer(bench, "a" * 400, max_tokens=200).end.usage.cached_tokens == 0
    assert [generator.capacity for generator in vendor.made] == [512, 1024]


def test_a_model_that_cannot_rewind_restarts_and_keeps_nothing() -> None:
    bench = bench_of(Vendor(can_rewind=False))
    for _ in range(3):
        outcome = answer(bench, "a long beginning")
        assert (outcome.text, outcome.end.usage.cached_tokens) == ("hijkl", 0)
    assert bench.engine.stats().kv_bytes == 0


def test_the_least_recently_used_leaves_first() -> None:
    bench = bench_of(Vendor(), prefix_cache_bytes=2 * SMALL)
    for prompt in ("a" * 20, "b" * 20, "a" * 20, "c" * 20):
        answer(bench, prompt)
    assert bench.engine.stats().kv_bytes == 2 * SMALL
    assert answer(bench, "a" * 20).end.usage.cached_tokens == 18
    assert answer(bench, "b" * 20).end.usage.cached_tokens == 0


def test_what_cannot_be_kept_beside_another_takes_its_place() -> None:
    """Making a generator costs time, since it fills its memory; emptying one costs none."""
    vendor = Vendor()
    bench = bench_of(vendor, prefix_cache_bytes=SMALL)
    assert [answer(bench, letter * 20).text for letter in "adg"] == ["bcdef", "efghi", "hijkl"]
    assert len(vendor.made) == 1


def test_after_an_abort_its_memory_is_free_again() -> None:
    bench = bench_of(Vendor(), prefix_cache_bytes=0)
    number = submit(bench, "a" * 20, max_tokens=100)
    bench.step()
    assert bench.engine.stats().kv_bytes == SMALL
    bench.engine.remove(number)
    assert bench.engine.stats().kv_bytes == 0


@pytest.mark.parametrize(("num_tokens", "capacity"), [(1, 512), (512, 512), (513, 1024), (1500, 2048), (2049, 4000), (4000, 4000)])
def test_capacities_double_up_to_the_context(num_tokens: int, capacity: int) -> None:
    assert capacity_for(num_tokens, 4000) == capacity


# ---- the form of answers ----

FORM = planned(tuple(range(97, 123)), *((byte,) for byte in b"xyz"), tuple(range(97, 123)))


@pytest.mark.parametrize("can_append", [True, False])
def test_forced_tokens_go_in_together_where_the_device_can(can_append: bool) -> None:
    vendor = Vendor()
    bench = bench_of(vendor, can_append=can_append)
    number = bench.submit(TextPrompt(text="abc"), grammar=FORM, logprobs=1)
    bench.run()
    outcome = bench.outcomes[number]
    assert (outcome.text, outcome.end.reason) == ("dxyza", FinishReason.STOP)  # after z comes the best that is allowed
    assert vendor.made[0].appended == ([3, 4] if can_append else [3])
    assert [each.token_id for each in outcome.logprobs] == [*b"dxyza"]
    assert [each.logprob for each in outcome.logprobs[1:4]] == [0.0] * 3


def test_a_constraint_that_breaks_fails_its_request_alone() -> None:
    bench = bench_of(Vendor())
    fails = bench.submit(TextPrompt(text="abc"), grammar=planned((100,), (101, 102), breaks_at=1))
    runs = submit(bench, "a")
    bench.run()
    failed = bench.outcomes[fails].failed
    assert failed is not None
    assert (failed.kind, failed.code) == (FailureKind.STEP_FAILED, "constraint_broken")
    assert bench.outcomes[runs].text == "bcdef"


@pytest.mark.parametrize("requested", [{"prompt_logprobs": 1}, {"prediction": "x"}])
def test_what_generators_cannot_do_is_refused(requested: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="engine onnx") as caught:
        bench_of(Vendor()).submit(TextPrompt(text="a"), **requested)
    assert (caught.value.field, caught.value.code) == (next(iter(requested)), "unsupported_parameter")


def test_a_chat_gets_a_row_of_a_flood_whose_answers_go_on_where_they_were() -> None:
    bench = bench_of(Vendor())
    answers = [bench.submit(TextPrompt(text=letter), max_tokens=20, group=1) for letter in "aaaaa"]
    for _ in range(5):
        bench.step()
    chat = submit(bench, "k")
    bench.step()
    assert bench.outcomes[chat].started is not None
    bench.run()
    assert bench.outcomes[chat].text == "lmnop"
    assert {bench.outcomes[each].text for each in answers} == {"bcdefghijklmnopqrstu"}
    assert bench.engine.stats().preemptions_total == 1


def test_what_gave_way_to_another_leaves_its_memory_when_it_is_aborted() -> None:
    bench = bench_of(Vendor(), prefix_cache_bytes=0)
    answers = [bench.submit(TextPrompt(text="a"), max_tokens=20, group=1) for _ in range(4)]
    bench.step()
    submit(bench, "k")
    bench.step()
    for number in answers:
        bench.engine.remove(number)
    bench.run()
    assert bench.engine.stats().kv_bytes == 0


def test_a_full_queue_refuses_the_request_with_the_most_waiting() -> None:
    bench = bench_of(Vendor())
    for letter in "abcd":
        submit(bench, letter, max_tokens=20)
    bench.step()
    flood = [bench.submit(TextPrompt(text="x"), max_tokens=20, group=9) for _ in range(3)]
    chat = submit(bench, "k")
    assert [failed.request for failed in bench.step().failed] == flood
    bench.run()
    assert bench.outcomes[chat].text == "lmnop"
