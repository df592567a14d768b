"""The ONNX engine on a tiny real decoder: predictable answers, and the same bits whoever else is in the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.records import Capability
from runtime.engines.model_folder import BadModelFolder, read_model_folder
from runtime.engines.onnx.decoder import OnnxDecoder
from runtime.engines.onnx.engine import build_onnx_engine
from runtime.engines.onnx.graph import UnsupportedGraph
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.events import FinishReason
from runtime.protocol.messages import EngineOptions
from runtime.protocol.request import Grammar, GrammarKind, TokensPrompt
from tests.doubles.engine_bench import Clock, EngineBench, text
from tests.doubles.synthetic_decoder import ALPHABET, CONTEXT, END, VOCAB, write_synthetic_decoder
from tests.effort import drawn

pytestmark = pytest.mark.model

RISING = "".join(ALPHABET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic_decoder(tmp_path_factory.mktemp("synthetic"))


def bench_of(folder: Path, **options: Any) -> EngineBench:
    return EngineBench(build_onnx_engine(folder, EngineOptions(**{"num_slots": 4, "threads": 1} | options)), Clock())


@pytest.fixture(scope="module")
def bench(folder: Path) -> Iterator[EngineBench]:
    shared = bench_of(folder, prefix_cache_bytes=0)
    yield shared
    shared.engine.close()


def test_the_answer_counts_up_to_the_end(bench: EngineBench) -> None:
    outcome = bench.answer("4", temperature=0)
    assert outcome.text == RISING[RISING.index("5") :]
    assert outcome.token_ids[-1] == END
    assert outcome.end.reason is FinishReason.STOP


def test_what_a_model_is_stands_in_its_info(bench: EngineBench) -> None:
    info = bench.engine.info
    assert (info.engine, info.provider, info.architecture) == ("onnx", "CPUExecutionProvider", "synthetic")
    assert (info.context_length, info.vocab_size, info.num_slots, info.threads) == (CONTEXT, VOCAB, 4, 1)
    assert info.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4  # K and V, layers, heads, head size, float32
    assert info.capabilities == {Capability.CHAT, Capability.COMPLETION, Capability.FORMS, Capability.ADAPTERS}
    assert info.resident_bytes > 0


# ---- one row's bits ----


def decoder_of(folder: Path, num_slots: int = 3) -> OnnxDecoder:
    return OnnxDecoder(read_model_folder(folder), num_slots=num_slots, threads=1, context=CONTEXT)


def tokens(values: list[int]) -> np.ndarray:
    return np.array(values, np.int32)


token_lists = st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=60)


@pytest.fixture(scope="module", params=[False, True], ids=["", "position_ids"])
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnnxDecoder]:
    made = decoder_of(write_synthetic_decoder(tmp_path_factory.mktemp("variant"), position_ids=request.param))
    yield made
    made.close()


@drawn(40)
@given(token_lists, st.integers(2, 58))
def test_a_prompt_in_chunks_is_the_whole_prompt(decoder: OnnxDecoder, prompt: list[int], cut: int) -> None:
    whole = decoder.prefill(0, tokens(prompt), 0).copy()
    if cut < len(prompt) - 1:
        decoder.prefill(1, tokens(prompt[:cut]), 0)
        assert (decoder.prefill(1, tokens(prompt[cut:]), cut) == whole).all()


@drawn(20)
@given(token_lists)
def test_logits_of_every_place_are_those_of_each_shorter_prompt(decoder: OnnxDecoder, prompt: list[int]) -> None:
    every = decoder.prefill(0, tokens(prompt), 0, num_logits=len(prompt)).copy()
    assert every.shape == (len(prompt), VOCAB)
    for length in range(2, len(prompt) + 1):
        assert (decoder.prefill(1, tokens(prompt[:length]), 0)[0] == every[length - 1]).all()


@drawn(40)
@given(token_lists, token_lists, token_lists)
def test_rows_of_different_length_decode_as_each_alone(
    decoder: OnnxDecoder, first: list[int], second: list[int], third: list[int]
) -> None:
    prompts = [first, second, third]
    alone = []
    for prompt in prompts:
        decoder.prefill(0, tokens(prompt[:-1]), 0)
        alone.append(decoder.decode(tokens(prompt[-1:]), tokens([len(prompt)]))[0].copy())
    for row, prompt in enumerate(prompts):
        decoder.prefill(row, tokens(prompt[:-1]), 0)
    together = decoder.decode(tokens([p[-1] for p in prompts]), tokens([len(p) for p in prompts]))
    assert (together == np.stack(alone)).all()


@drawn(20)
@given(token_lists, token_lists)
def test_a_row_that_moved_goes_on_as_it_was(decoder: OnnxDecoder, prompt: list[int], other: list[int]) -> None:
    decoder.prefill(0, tokens(prompt), 0)
    expected = decoder.decode(tokens([5]), tokens([len(prompt) + 1]))[0].copy()
    decoder.prefill(2, tokens(prompt), 0)
    decoder.prefill(0, tokens(other), 0)
    decoder.kv.move(2, 0)
    assert (decoder.decode(tokens([5]), tokens([len(prompt) + 1]))[0] == expected).all()


def test_the_bits_do_depend_on_the_context(decoder: OnnxDecoder) -> None:
    """Else the tests above would prove nothing."""
    one = decoder.prefill(0, tokens([1, 2, 3]), 0).copy()
    assert (decoder.prefill(0, tokens([2, 2, 3]), 0) != one).any()


def test_a_decoded_token_stands_where_it_would_stand_in_the_prompt(decoder: OnnxDecoder) -> None:
    """Another kernel, so not the same bits; another place would differ a hundred times as much."""
    prompt = list(range(20))
    whole = decoder.prefill(0, tokens(prompt), 0).copy()
    decoder.prefill(1, tokens([9, 9]), 0)
    decoder.prefill(0, tokens(prompt[:-1]), 0)
    assert np.allclose(decoder.decode(tokens(prompt[-1:]), tokens([len(prompt)])), whole, atol=1e-4)


def test_positions_reach_a_graph_that_takes_them(tmp_path: Path) -> None:
    plain = decoder_of(write_synthetic_decoder(tmp_path / "a"))
    placed = decoder_of(write_synthetic_decoder(tmp_path / "b", position_ids=True))
    prompt = tokens([1, 2, 3])
    assert (plain.prefill(0, prompt, 0) != placed.prefill(0, prompt, 0)).any()


# ---- whole requests ----

requests = st.tuples(
    st.text(st.sampled_from(ALPHABET), min_size=1, max_size=40),
    st.sampled_from([0.0, 8.0]),  # at 8 the choice is wide open, and every bit of the logits counts
    st.integers(0, 3),
    st.integers(1, 30),
)


@drawn(25)
@given(st.lists(requests, min_size=2, max_size=7))
def test_a_mix_answers_as_each_request_alone(
    bench: EngineBench, caching: EngineBench, mix: list[tuple[str, float, int, int]]
) -> None:
    """Alone; together; and together where earlier prompts are cached."""

    def requested(request: tuple[str, float, int, int]) -> dict[str, Any]:
        _, temperature, seed, max_tokens = request
        return {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}

    alone = [bench.answer(text(request[0]), **requested(request)).token_ids for request in mix]
    for some in (bench, caching):
        numbers = [some.submit(text(request[0]), **requested(request)) for request in mix]
        some.run()
        assert [some.outcomes[number].token_ids for number in numbers] == alone


@pytest.fixture(scope="module")
def caching(folder: Path) -> Iterator[EngineBench]:
    shared = bench_of(folder, prefix_cache_bytes=1 << 20, max_token_gap_s=1e-9)
    yield shared
    shared.engine.close()


def test_a_prefix_is_reused_and_changes_nothing(folder: Path) -> None:
    bench = bench_of(folder)
    prompt = RISING[:50]
    fresh = bench.answer(text(prompt), temperature=8.0, seed=1, max_tokens=20)
    again = bench.answer(text(prompt), temperature=8.0, seed=1, max_tokens=20)
    assert (fresh.end.usage.cached_tokens, again.end.usage.cached_tokens) == (0, 48)
    assert again.token_ids == fresh.token_ids


def test_the_context_ends_an_answer(bench: EngineBench) -> None:
    outcome = bench.answer(text(RISING[:60] + RISING[:58]), temperature=0, ignore_eos=True, logit_bias={END: -100.0})
    assert outcome.end.reason is FinishReason.LENGTH
    assert outcome.end.usage.prompt_tokens + outcome.end.usage.completion_tokens == CONTEXT


def test_a_prompt_that_fills_the_context_is_refused(bench: EngineBench) -> None:
    with pytest.raises(InvalidRequest, match=f"{CONTEXT} tokens, but the prompt has {CONTEXT} tokens"):
        bench.submit(TokensPrompt(token_ids=[1] * CONTEXT))


def test_a_shorter_context_may_be_requested(folder: Path) -> None:
    assert bench_of(folder, context_length=40).engine.info.context_length == 40
    assert bench_of(folder, context_length=10_000).engine.info.context_length == CONTEXT


def test_memory_of_an_aborted_row_comes_back(folder: Path) -> None:
    bench = bench_of(folder, prefix_cache_bytes=0, kv_budget_bytes=1)
    number = bench.submit(text(RISING[:40]), temperature=0)
    bench.step()
    bench.engine.remove(number)
    bench.submit(text("!"), temperature=0, max_tokens=2)
    bench.step()
    assert bench.engine.stats().kv_bytes < 40 * bench.engine.info.kv_bytes_per_token


# ---- what cannot be served ----


def test_attention_that_cannot_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedGraph, match="no GroupQueryAttention"):
        build_onnx_engine(write_synthetic_decoder(tmp_path, attention="MultiHeadAttention"), EngineOptions())


def test_a_graph_whose_cache_has_other_names_is_refused(tmp_path: Path) -> None:
    write_synthetic_decoder(tmp_path)
    config = json.loads((tmp_path / "genai_config.json").read_text())
    config["model"]["decoder"]["inputs"]["past_key_names"] = "cache.%d.key"
    (tmp_path / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedGraph, match=r"no input 'cache\.0\.key'"):
        build_onnx_engine(tmp_path, EngineOptions())


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_graph_is_refused(tmp_path: Path, kept: float) -> None:
    graph = write_synthetic_decoder(tmp_path) / "model.onnx"
    data = graph.read_bytes()
    graph.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(Exception, match=r"model\.onnx|ONNX|protobuf|Load model"):
        build_onnx_engine(tmp_path, EngineOptions())


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFolder, match=r"genai_config\.json is missing"):
        build_onnx_engine(tmp_path, EngineOptions())


# ---- predictions and log probabilities ----


def test_a_right_prediction_is_verified_in_few_steps(folder: Path) -> None:
    plain, drafted = bench_of(folder), bench_of(folder)
    expected = plain.answer("4", temperature=0)
    outcome = drafted.answer("4", temperature=0, prediction=expected.text)
    assert (outcome.text, outcome.token_ids) == (expected.text, expected.token_ids)
    assert outcome.end.usage.accepted_prediction_tokens > 30
    assert drafted.engine.stats().steps_total < plain.engine.stats().steps_total / 3
    for made in (plain, drafted):
        made.engine.close()


def test_a_drafted_answer_is_the_same_beside_others_and_disturbs_none(bench: EngineBench) -> None:
    requested = [(prompt, prediction) for prompt in "4AS" for prediction in (None, RISING, RISING[:20] + "!!" + RISING[30:])]
    alone = [bench.answer(prompt, temperature=0, prediction=prediction).token_ids for prompt, prediction in requested]
    numbers = [bench.submit(prompt, temperature=0, prediction=prediction) for prompt, prediction in requested]
    bench.run()
    assert [bench.outcomes[number].token_ids for number in numbers] == alone


def test_a_prompts_probabilities_are_those_of_its_logits(bench: EngineBench, folder: Path) -> None:
    prompt = [5, 6, 7, 9, 10]
    outcome = bench.answer(TokensPrompt(token_ids=prompt), max_tokens=0, prompt_logprobs=1)
    assert outcome.started is not None
    reported = outcome.started.prompt_logprobs
    assert reported is not None
    decoder = decoder_of(folder)
    every = decoder.prefill(0, tokens(prompt), 0, num_logits=5)
    weights = np.exp(every - every.max(axis=1, keepdims=True))
    expected = np.log(weights / weights.sum(axis=1, keepdims=True))
    assert reported[0] is None
    for place in range(1, 5):
        each = reported[place]
        assert each is not None
        assert each.logprob == pytest.approx(expected[place - 1, prompt[place]], abs=1e-4)
        assert each.top[0].token_id == prompt[place - 1] + 1
    decoder.close()


def test_forced_tokens_go_through_the_model_together(folder: Path) -> None:
    made = bench_of(folder)
    form = Grammar(kind=GrammarKind.REGEX, source="[0-9]-THEN-[A-Z]")
    outcome = made.answer("4", temperature=0, grammar=form)
    assert outcome.text[:-1] == "5-THEN-"
    assert outcome.end.reason is FinishReason.STOP
    assert made.engine.stats().steps_total == 2
    made.engine.close()


def test_a_chat_template_that_does_not_compile_costs_chat_alone(tmp_path: Path) -> None:
    folder = write_synthetic_decoder(tmp_path)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}\n{{ m.content }")
    bench = bench_of(folder)
    info = bench.engine.info
    assert info.capabilities == {Capability.COMPLETION, Capability.FORMS, Capability.ADAPTERS}
    assert info.chat_template_error is not None
    assert "does not compile: line 2" in info.chat_template_error
    assert bench.outcomes[bench.submit(text("4"), max_tokens=2, temperature=0)] is not None
    bench.run()
    assert bench.outcomes[1].text == "56"
    with pytest.raises(InvalidRequest, match="line 2") as caught:
        bench.submit("4")
    assert (caught.value.field, caught.value.code) == ("conversation", "chat_template_error")
    bench.engine.close()
