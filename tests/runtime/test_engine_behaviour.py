"""The contract of every engine, tested on each that runs here, with the default model.

What an engine cannot do, it refuses by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_registry.records import Capability
from model_registry.registry import open_registry
from runtime.protocol.errors import FailureKind, Field, InvalidRequest
from runtime.protocol.events import FinishReason
from runtime.protocol.request import ChatPrompt, Grammar, GrammarKind, TextPrompt, TokensPrompt, ToolChoice, ToolMode
from tests.doubles.engine_bench import EngineBench, Outcome
from tests.runtime.behaviour_engines import CONTEXT, ENGINES, EngineUnderTest

pytestmark = pytest.mark.model

DIGITS = "0123456789"  # each is one token, for all these tokenizers
SENTENCE = "The river rises in the hills, crosses the plain and reaches the sea near the old harbour. "
CAN_BE_REFUSED = {
    "min_p": 0.1,
    "typical_p": 0.9,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {5: 1.0},
    "ignore_eos": True,
    "min_tokens": 3,
    "stop_token_ids": (5,),
    "repetition_penalty": 1.1,
    "top_k": 5,
    "seed": 1,
    "logprobs": 2,
    "prompt_logprobs": 0,
    "prediction": "Once upon a time there was a farmer",
    "grammar": Grammar(kind=GrammarKind.REGEX, source="[0-9]{2}"),
}
CALL_OF_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
RING = {"type": "function", "function": {"name": "ring_the_bell", "parameters": CALL_OF_NOTHING}}


@pytest.fixture(scope="module")
def folder(default_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below a folder where a test may write beside it."""
    with open_registry(default_home) as registry:
        original = registry.resolve("smollm2-135m").variants[0].folder
    link = tmp_path_factory.mktemp("default-model") / "model"
    link.symlink_to(original, target_is_directory=True)
    return link


@pytest.fixture(scope="module", params=ENGINES)
def tested(request: pytest.FixtureRequest) -> EngineUnderTest:
    return ENGINES[request.param]


@pytest.fixture(scope="module")
def bench(tested: EngineUnderTest, folder: Path) -> Iterator[EngineBench]:
    made = tested.bench(folder)
    yield made
    made.engine.close()


@pytest.fixture(scope="module")
def greedy(tested: EngineUnderTest, bench: EngineBench) -> Outcome:
    """The beginning of the story."""
    return bench.answer(tested.story, temperature=0, max_tokens=24)


def is_refused(tested: EngineUnderTest, bench: EngineBench, name: str, value: Any) -> bool:
    if name not in tested.refuses:
        return False
    field = Field.FORM if name == "grammar" else Field(name)
    with pytest.raises(InvalidRequest, match=field.quoted) as refusal:
        bench.submit(tested.story, **{name: value})
    assert refusal.value.field is field
    return True


@pytest.mark.parametrize("name", CAN_BE_REFUSED)
def test_what_it_cannot_do_is_refused_by_name_and_the_rest_is_served(
    tested: EngineUnderTest, bench: EngineBench, name: str
) -> None:
    if not is_refused(tested, bench, name, CAN_BE_REFUSED[name]):
        assert bench.answer(tested.story, max_tokens=2, **{name: CAN_BE_REFUSED[name]}).end.usage.completion_tokens <= 2


# ---- the answer ----


def test_an_answer_comes_in_pieces(greedy: Outcome) -> None:
    assert len(greedy.pieces) > 5
    assert len(greedy.text) > 10


def test_greedy_is_one_answer(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    again = bench.answer(tested.story, temperature=0, max_tokens=24)
    assert again.token_ids == greedy.token_ids
    assert again.text == greedy.text


def test_a_seed_makes_an_answer_repeatable(tested: EngineUnderTest, bench: EngineBench) -> None:
    if is_refused(tested, bench, "seed", 7):
        return

    def drawn(seed: int) -> list[int]:
        return bench.answer(tested.story, temperature=1.0, top_p=1.0, seed=seed, max_tokens=16).token_ids

    assert drawn(7) == drawn(7)
    assert (drawn(7) != drawn(8)) == tested.samples


def test_characters_are_never_cut(tested: EngineUnderTest, bench: EngineBench) -> None:
    outcome = bench.answer(tested.emoji, temperature=0, max_tokens=24)
    assert "🙃" in outcome.text
    assert len(outcome.token_ids) > len(outcome.text), "no character took several tokens"
    assert all("\ufffd" not in piece for piece in outcome.pieces)


def test_many_at_a_time_answer_as_each_alone(tested: EngineUnderTest, bench: EngineBench) -> None:
    requested = [tested.story, "Hi!", "What is the capital of France?", SENTENCE * 4]
    alone = [bench.answer(prompt, temperature=0, max_tokens=12).token_ids for prompt in requested]
    numbers = [bench.submit(prompt, temperature=0, max_tokens=12) for prompt in requested]
    bench.run()
    assert [bench.outcomes[number].token_ids for number in numbers] == alone


# ---- its form ----


def test_answers_follow_their_grammar_beside_one_that_is_free(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    form = Grammar(kind=GrammarKind.REGEX, source="(river|sea): [0-9]{3} ships and no more")
    if is_refused(tested, bench, "grammar", form):
        return
    free = bench.submit(tested.story, temperature=0, max_tokens=24)
    held = [bench.submit(tested.story, temperature=temperature, seed=1, grammar=form) for temperature in (0.0, 1.0)]
    bench.run()
    for number in held:
        assert re.fullmatch(form.source, bench.outcomes[number].text)
        assert bench.outcomes[number].end.reason is FinishReason.STOP
    assert bench.outcomes[free].token_ids == greedy.token_ids


def test_a_call_is_made_where_it_is_required(tested: EngineUnderTest, bench: EngineBench) -> None:
    choice = ToolChoice(mode=ToolMode.REQUIRED, parallel=False)
    prompt = ChatPrompt(messages=[{"role": "user", "content": "Hello!"}], tools=[RING], tool_choice=choice)
    if "grammar" in tested.refuses:
        with pytest.raises(InvalidRequest, match="another engine") as refusal:
            bench.submit(prompt)
        assert (refusal.value.field, refusal.value.code) == ("tool_choice", "unsupported_parameter")
        return
    assert "ring_the_bell" in bench.answer(prompt, temperature=0, max_tokens=100).text


def test_tokens_have_their_probabilities(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    if is_refused(tested, bench, "logprobs", 2):
        return
    reported = bench.answer(tested.story, temperature=0, max_tokens=8, logprobs=2).logprobs
    assert [each.token_id for each in reported] == greedy.token_ids[:8]
    assert all(each.top[0].token_id == each.token_id and each.logprob == each.top[0].logprob <= 0 for each in reported)
    assert all(each.top[1].logprob <= each.top[0].logprob for each in reported)


# ---- its end ----


def test_max_tokens_ends_an_answer(greedy: Outcome) -> None:
    assert greedy.end.reason is FinishReason.LENGTH
    assert greedy.end.usage.completion_tokens == len(greedy.token_ids) == 24


def test_a_stop_string_ends_an_answer_and_no_part_of_it_is_shown(
    tested: EngineUnderTest, bench: EngineBench, greedy: Outcome
) -> None:
    stop = greedy.text[8:13]
    outcome = bench.answer(tested.story, temperature=0, max_tokens=24, stop=(stop,))
    assert outcome.text == greedy.text[: greedy.text.index(stop)]
    assert (outcome.end.reason, outcome.end.stop) == (FinishReason.STOP, stop)
    assert not outcome.text.endswith(stop[0])


def test_what_only_began_a_stop_string_comes_out(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    outcome = bench.answer(tested.story, temperature=0, max_tokens=24, stop=(greedy.text[-4:] + "\x00",))
    assert (outcome.text, outcome.end.reason) == (greedy.text, FinishReason.LENGTH)


def test_a_stop_token_ends_an_answer(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    token = greedy.token_ids[5]
    if is_refused(tested, bench, "stop_token_ids", (token,)):
        return
    outcome = bench.answer(tested.story, temperature=0, max_tokens=24, stop_token_ids=(token,))
    assert outcome.token_ids == greedy.token_ids[: greedy.token_ids.index(token) + 1]
    assert (outcome.end.reason, outcome.end.stop) == (FinishReason.STOP, token)


def test_min_tokens_keeps_the_end_away(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    requested: dict[str, Any] = {"temperature": 0, "max_tokens": 24, "stop": (greedy.text[:2],)}
    assert bench.answer(tested.story, **requested).end.usage.completion_tokens < 9
    if not is_refused(tested, bench, "min_tokens", 9):
        assert bench.answer(tested.story, min_tokens=9, **requested).end.usage.completion_tokens >= 9


# ---- limits ----


def test_usage_counts_tokens(bench: EngineBench) -> None:
    outcome = bench.answer(TextPrompt(text="31415"), temperature=0, max_tokens=6)
    assert outcome.started is not None
    assert (outcome.started.prompt_tokens, outcome.end.usage.prompt_tokens) == (5, 5)
    assert outcome.end.usage.completion_tokens == len(outcome.token_ids)
    assert 0 <= outcome.end.usage.cached_tokens < 5


def test_an_empty_prompt_is_refused(bench: EngineBench) -> None:
    with pytest.raises(InvalidRequest, match="empty") as refusal:
        bench.submit(TextPrompt(text=""))
    assert refusal.value.field == "prompt"


def test_a_prompt_that_fills_the_context_is_refused(bench: EngineBench) -> None:
    assert bench.engine.info.context_length == CONTEXT
    with pytest.raises(InvalidRequest, match=f"{CONTEXT} tokens") as refusal:
        bench.submit(TokensPrompt(token_ids=[50] * CONTEXT))
    assert (refusal.value.field, refusal.value.code) == ("prompt", "context_length_exceeded")


def test_a_long_prompt_is_answered_up_to_the_context(bench: EngineBench) -> None:
    length = CONTEXT - 4
    outcome = bench.answer(TextPrompt(text=(DIGITS * CONTEXT)[:length]), temperature=0)
    usage = outcome.end.usage
    assert outcome.end.reason is FinishReason.LENGTH
    assert (usage.prompt_tokens, usage.completion_tokens) == (length, 4)


# ---- others ----


def test_an_abort_takes_effect_before_the_next_step(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    gone = bench.submit(tested.story, temperature=0, max_tokens=24)
    stays = bench.submit(tested.story, temperature=0, max_tokens=24)
    while len(bench.outcomes[gone].pieces) < 3:
        bench.step()
    bench.engine.remove(gone)
    assert bench.engine.num_unfinished == 1
    reported = len(bench.outcomes[gone].pieces)
    bench.run()
    assert len(bench.outcomes[gone].pieces) == reported
    assert bench.outcomes[gone].finished is None
    assert bench.outcomes[stays].token_ids == greedy.token_ids


def test_who_is_urgent_goes_first(tested: EngineUnderTest, bench: EngineBench) -> None:
    running = [bench.submit(tested.story, max_tokens=60) for _ in range(bench.engine.info.num_slots)]
    bench.step()
    late = bench.submit("Hi!", max_tokens=1, priority=1)
    urgent = bench.submit("Hi!", max_tokens=1, priority=0)
    for number in running:
        bench.engine.remove(number)
    order = []
    while bench.engine.num_unfinished:
        order += [started.request for started in bench.step().started]
    assert order == [urgent, late]


@pytest.mark.parametrize("deadline_s", [0.0, 0.01])
def test_a_deadline_ends_a_request_and_no_other(
    tested: EngineUnderTest, bench: EngineBench, greedy: Outcome, deadline_s: float
) -> None:
    hurried = bench.submit(tested.story, max_tokens=1500, deadline_s=deadline_s)
    patient = bench.submit(tested.story, temperature=0, max_tokens=24)
    bench.run()
    failed = bench.outcomes[hurried].failed
    assert failed is not None
    assert (failed.kind, failed.code) == (FailureKind.NOT_READY, "deadline_exceeded")
    assert bench.outcomes[patient].token_ids == greedy.token_ids


def test_a_request_that_fails_disturbs_no_other(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    """A bias that is no number leaves no token to choose."""
    broken = {"logit_bias": {5: float("nan")}}
    if is_refused(tested, bench, "logit_bias", broken["logit_bias"]):
        return
    before = bench.submit(tested.story, temperature=0, max_tokens=24)
    fails = bench.submit(tested.story, temperature=0, max_tokens=24, **broken)
    after = bench.submit(tested.story, temperature=0, max_tokens=24)
    bench.run()
    failed = bench.outcomes[fails].failed
    assert failed is not None
    assert (failed.kind, failed.code) == (FailureKind.STEP_FAILED, "no_token")
    assert bench.outcomes[before].token_ids == bench.outcomes[after].token_ids == greedy.token_ids


def test_after_all_failed_it_serves_again(tested: EngineUnderTest, bench: EngineBench, greedy: Outcome) -> None:
    numbers = [bench.submit(tested.story, max_tokens=24) for _ in range(bench.engine.info.num_slots + 1)]
    bench.step()
    bench.step()
    assert sorted(bench.engine.fail_all()) == numbers
    assert bench.engine.num_unfinished == 0
    assert bench.answer(tested.story, temperature=0, max_tokens=24).token_ids == greedy.token_ids


def test_stats_say_what_is_going_on(tested: EngineUnderTest, bench: EngineBench) -> None:
    idle = bench.engine.stats()
    assert (idle.num_running, idle.num_waiting) == (0, 0)
    slots = bench.engine.info.num_slots
    for _ in range(slots + 2):
        bench.submit(tested.story, max_tokens=40)
    bench.step()
    busy = bench.engine.stats()
    assert (busy.num_running, busy.num_waiting) == (slots, 2)
    assert busy.steps_total > idle.steps_total
    assert busy.resident_bytes > 0
    bench.run()
    assert (bench.engine.stats().num_running, bench.engine.stats().num_waiting) == (0, 0)


def test_its_info_is_filled_in(bench: EngineBench) -> None:
    info = bench.engine.info
    assert info.num_slots >= 1
    assert info.threads >= 1
    assert info.vocab_size > 0
    assert {Capability.CHAT, Capability.COMPLETION} <= info.capabilities
    assert info.pid > 0
