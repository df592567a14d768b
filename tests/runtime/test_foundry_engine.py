"""The foundry engine on Foundry Local's real SDK, with a tiny decoder whose answers are known in advance."""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.batching.sequence import ResolvedParams
from runtime.engines.foundry.sessions import FoundryModel, build_foundry_engine
from runtime.engines.foundry.text_intake import Answer, Answered
from runtime.engines.onnx.engine import build_onnx_engine
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.events import FinishReason
from runtime.protocol.messages import EngineOptions, ProviderChoice
from runtime.protocol.request import ChatPrompt, TokensPrompt
from tests.doubles.engine_bench import Clock, EngineBench, text
from tests.doubles.synthetic_decoder import ALPHABET, CONTEXT, END, HEADS, HIDDEN, write_synthetic_decoder

pytestmark = pytest.mark.model

RISING = "".join(ALPHABET)


def write_genai_decoder(folder: Path) -> Path:
    """The synthetic decoder with the configuration that only onnxruntime-genai needs."""
    write_synthetic_decoder(folder)
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    model = config["model"]
    model |= {"type": "llama", "bos_token_id": END, "pad_token_id": END}
    model["decoder"] |= {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "session_options": {"provider_options": []}}
    model["decoder"]["inputs"] |= {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    model["decoder"]["outputs"]["logits"] = "logits"
    config["search"] = {"max_length": CONTEXT, "past_present_share_buffer": True}
    path.write_text(json.dumps(config))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genai_decoder(tmp_path_factory.mktemp("genai"))


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the engine keeps what it shows to Foundry Local; and the variables that it sets are set back."""
    where = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(where))
        for name in ("CI", "ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
            patch.setenv(name, "1")
        yield where


@pytest.fixture(scope="module")
def bench(folder: Path, temporary: Path) -> Iterator[EngineBench]:
    engine = build_foundry_engine(folder, EngineOptions(num_slots=2, threads=1), ProviderChoice())
    yield EngineBench(engine, Clock())
    engine.close()
    assert list(temporary.iterdir()) == [], "nothing stays behind"


def test_it_answers_as_our_own_engine_does(bench: EngineBench, folder: Path) -> None:
    ours = EngineBench(build_onnx_engine(folder, EngineOptions(num_slots=2, threads=1)), Clock())
    for prompt in ("4", RISING[:9]):
        expected, outcome = ours.answer(prompt, temperature=0), bench.answer(prompt, temperature=0)
        assert outcome.text == expected.text == RISING[RISING.index(prompt[-1]) + 1 :]
        assert outcome.end.reason is expected.end.reason is FinishReason.STOP
        assert outcome.end.usage.prompt_tokens == len(prompt)
        assert outcome.end.usage.completion_tokens == len(outcome.text) == len(outcome.token_ids)
    ours.engine.close()


def test_its_info_says_what_it_is(bench: EngineBench) -> None:
    info = bench.engine.info
    assert (info.engine, info.provider, info.context_length, info.num_slots, info.threads) == (
        "foundry",
        "CPUExecutionProvider",
        CONTEXT,
        2,
        1,
    )
    assert info.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4  # K and V, layers, heads, head size, float32
    assert not info.can_set_threads
    assert not info.batches


@pytest.mark.parametrize(
    "prompt", [text("AB"), TokensPrompt(token_ids=[RISING.index("A"), RISING.index("B")]), "AB"], ids=["text", "tokens", "chat"]
)
def test_a_prompt_is_what_we_made_of_it_and_no_template_of_the_runtime(bench: EngineBench, prompt: Any) -> None:
    outcome = bench.answer(prompt, temperature=0, max_tokens=3)
    assert outcome.text == "CDE"
    assert outcome.started is not None
    assert outcome.started.prompt_tokens == outcome.end.usage.prompt_tokens == 2
    assert outcome.end.reason is FinishReason.LENGTH


def test_the_messages_are_rendered_by_the_model_s_own_template(bench: EngineBench) -> None:
    messages = [{"role": "user", "content": "C"}, {"role": "assistant", "content": "D"}, {"role": "user", "content": "E"}]
    outcome = bench.answer(ChatPrompt(messages=messages), temperature=0, max_tokens=1)
    assert (outcome.text, outcome.end.usage.prompt_tokens) == ("F", 3)


def test_a_stop_string_ends_an_answer(bench: EngineBench) -> None:
    outcome = bench.answer("A", temperature=0, stop=("EF",))
    assert (outcome.text, outcome.end.reason, outcome.end.stop) == ("BCD", FinishReason.STOP, "EF")


def test_requests_beyond_the_slots_wait(bench: EngineBench) -> None:
    numbers = [bench.submit(letter, temperature=0, max_tokens=20) for letter in "ABC"]
    while bench.engine.num_unfinished:
        bench.step()
        stats = bench.engine.stats()
        assert stats.num_running <= 2
        assert stats.num_running + stats.num_waiting == bench.engine.num_unfinished
    assert [bench.outcomes[number].text[0] for number in numbers] == ["B", "C", "D"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("presence_penalty", 0.5),
        ("frequency_penalty", 0.5),
        ("repetition_penalty", 1.1),
        ("min_p", 0.1),
        ("typical_p", 0.9),
        ("logit_bias", {1: 1.0}),
        ("min_tokens", 2),
        ("stop_token_ids", (1,)),
        ("ignore_eos", True),
        ("skip_special_tokens", False),
        ("temperature", 2.5),
    ],
)
def test_what_the_sdk_cannot_do_is_refused_by_name(bench: EngineBench, field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=field) as refusal:
        bench.submit("A", **{field: value})
    assert refusal.value.field == field


def test_neutral_values_are_no_refusal(bench: EngineBench) -> None:
    neutral = {"min_p": 0.0, "typical_p": 1.0, "repetition_penalty": 1.0, "top_k": -1, "top_p": 1.0, "seed": 1 << 60}
    assert bench.answer("A", max_tokens=2, **neutral).end.usage.completion_tokens == 2


class HeldAnswers:
    """Foundry's answers, each held at its first text until `go_on`: the tiny decoder may have generated all of its text before a
    step reads any.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reported: list[str] = []
        self.go_on, self.ended = threading.Event(), threading.Event()
        begin = FoundryModel.answer

        def answer(model: FoundryModel, text: str, params: ResolvedParams) -> Answer:
            begun = begin(model, text, params)
            patch.setattr(begun, "run", functools.partial(self._run, begun.run))
            return begun

        patch.setattr(FoundryModel, "answer", answer)

    def _run(self, run: Callable[[Callable[[str], None]], Answered], on_text: Callable[[str], None]) -> Answered:
        def send_and_wait(text: str) -> None:
            self.reported.append(text)
            on_text(text)
            assert self.go_on.wait(60)

        try:
            return run(send_and_wait)
        finally:
            self.ended.set()


def test_an_abort_ends_the_session_and_frees_its_slot(bench: EngineBench) -> None:
    with pytest.MonkeyPatch.context() as patch:
        held = HeldAnswers(patch)
        gone = bench.submit("A", temperature=0)
        while not bench.outcomes[gone].pieces:
            bench.step()
        bench.engine.remove(gone)
        assert bench.engine.num_unfinished == 0
        held.go_on.set()
        assert held.ended.wait(60)
    assert held.reported == ["B"]
    assert [bench.answer(letter, temperature=0, max_tokens=1).text for letter in "ABC"] == ["B", "C", "D"]
    assert bench.outcomes[gone].finished is None


def test_the_model_s_folder_stays_as_it_is(bench: EngineBench, folder: Path) -> None:
    bench.answer("A", temperature=0, max_tokens=1)
    assert {path.name for path in folder.iterdir()} == {
        "model.onnx",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "messages[0]" not in (folder / "tokenizer_config.json").read_text()


def test_another_provider_is_refused_with_what_serves_it(folder: Path) -> None:
    with pytest.raises(ValueError, match="genai engine"):
        build_foundry_engine(folder, EngineOptions(), ProviderChoice(name="CUDAExecutionProvider"))


def test_without_the_sdk_the_message_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setitem(sys.modules, "foundry_local_sdk", None)
    with pytest.raises(ValueError, match="pip install foundry-local-sdk"):
        build_foundry_engine(folder, EngineOptions(), ProviderChoice())
