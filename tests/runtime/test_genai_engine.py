"""onnxruntime-genai as an engine, on a tiny real decoder: the answers of our own engine, and of a graph that ours cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runtime.engines.genai.library
from runtime.engines.genai.library import build_genai_engine, genai_flags
from runtime.engines.model_folder import BadModelFolder
from runtime.engines.onnx.engine import build_onnx_engine
from runtime.engines.onnx.graph import UnsupportedGraph
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.events import FinishReason
from runtime.protocol.messages import EngineOptions, ProviderChoice
from tests.doubles.behaviour_plain_decoder import write_genai_decoder
from tests.doubles.engine_bench import Clock, EngineBench, text
from tests.doubles.synthetic_decoder import ALPHABET, CONTEXT, END, HEAD_SIZE, HEADS, LAYERS, VOCAB

pytestmark = pytest.mark.model

RISING = "".join(ALPHABET)
OPTIONS = EngineOptions(num_slots=4, threads=1)
WIDE_OPEN: dict[str, Any] = {"temperature": 8.0, "max_tokens": 30, "ignore_eos": True}  # every bit of the scores counts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genai_decoder(tmp_path_factory.mktemp("gqa"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genai_decoder(tmp_path_factory.mktemp("plain"), plain=True)


def bench_of(folder: Path, options: EngineOptions = OPTIONS) -> EngineBench:
    return EngineBench(build_genai_engine(folder, options, ProviderChoice()), Clock())


@pytest.fixture(scope="module")
def bench(folder: Path) -> Iterator[EngineBench]:
    made = bench_of(folder)
    yield made
    made.engine.close()


def test_what_a_model_is_stands_in_its_info(bench: EngineBench) -> None:
    info = bench.engine.info
    assert (info.engine, info.provider, info.architecture) == ("genai", "CPUExecutionProvider", "llama")
    assert (info.context_length, info.vocab_size, info.num_slots, info.threads) == (CONTEXT, VOCAB, 4, 1)
    assert info.kv_bytes_per_token == 2 * LAYERS * HEADS * HEAD_SIZE * 4
    assert (info.batches, info.can_set_threads) == (False, False)


@pytest.mark.parametrize("prompt", ["4", RISING[:40], RISING[:3] * 20])
@pytest.mark.parametrize("params", [{"seed": 3}, {"seed": 4, "repetition_penalty": 1.3}, {"seed": 5, "min_p": 0.2}], ids=str)
def test_the_answers_are_those_of_our_own_engine(bench: EngineBench, folder: Path, prompt: str, params: dict[str, Any]) -> None:
    """Token for token, drawn from nearly flat scores: the same model, the same choice."""
    ours = EngineBench(build_onnx_engine(folder, OPTIONS), Clock())
    assert bench.answer(text(prompt), **WIDE_OPEN, **params).token_ids == ours.answer(text(prompt), **WIDE_OPEN, **params).token_ids
    ours.engine.close()


def test_a_graph_that_ours_cannot_run_is_served(plain: Path) -> None:
    with pytest.raises(UnsupportedGraph):
        build_onnx_engine(plain, OPTIONS)
    bench = bench_of(plain)
    assert bench.engine.info.kv_bytes_per_token == 2 * LAYERS * HEADS * HEAD_SIZE * 4
    numbers = [bench.submit(text(RISING[: n + 1]), temperature=0) for n in (0, 20, 45)]
    bench.run()
    for number, n in zip(numbers, (0, 20, 45), strict=True):
        outcome = bench.outcomes[number]
        assert outcome.text == RISING[n + 1 :]
        assert (outcome.token_ids[-1], outcome.end.reason) == (END, FinishReason.STOP)


@pytest.mark.parametrize("kind", ["folder", "plain"])
def test_a_prefix_is_reused_and_changes_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request.getfixturevalue(kind))
    prompt = RISING[:50]
    fresh = bench.answer(text(prompt), seed=1, **WIDE_OPEN)
    again = bench.answer(text(prompt), seed=1, **WIDE_OPEN)
    longer = bench.answer(text(prompt + "!!!!"), seed=1, **WIDE_OPEN)
    assert [outcome.end.usage.cached_tokens for outcome in (fresh, again, longer)] == [0, 48, 50]
    assert again.token_ids == fresh.token_ids
    assert bench.engine.stats().prefix_hits_total == 98
    assert bench_of(request.getfixturevalue(kind)).answer(text(prompt + "!!!!"), seed=1, **WIDE_OPEN).token_ids == longer.token_ids


@pytest.mark.parametrize("ending", [1, 3])
def test_padding_tokens_in_a_prompt_are_tokens(folder: Path, ending: int) -> None:
    """Token 0 is genai's padding by default, and `!` here: at the end of a prompt, and of a chunk."""
    bench = bench_of(folder, EngineOptions(num_slots=2, threads=1, max_token_gap_s=1e-9))
    bench.submit(text("4"), temperature=0, logit_bias={END: -100.0}, max_tokens=60)  # in small chunks beside this one
    bench.step()
    outcome = bench.answer(text(RISING[:12] + "!" * (20 + ending)), temperature=0)
    assert outcome.text == RISING[1:]


def test_without_room_nothing_is_kept(folder: Path) -> None:
    bench = bench_of(folder, EngineOptions(num_slots=1, threads=1, prefix_cache_bytes=0))
    for _ in range(2):
        assert bench.answer(text(RISING[:50]), max_tokens=2).end.usage.cached_tokens == 0
    assert bench.engine.stats().kv_bytes == 0


def test_a_device_that_cannot_append_is_steered(bench: EngineBench, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prompts go in whole, and genai's own search is left no other choice than ours."""
    monkeypatch.setattr(runtime.engines.genai.library, "_APPENDING", frozenset())
    steered = bench_of(folder)
    requested = WIDE_OPEN | {"ignore_eos": False, "seed": 9}
    for prompt in ("4", RISING[:50]):
        assert steered.answer(text(prompt), **requested).token_ids == bench.answer(text(prompt), **requested).token_ids
    assert steered.engine.stats().prefix_hits_total == 0
    with pytest.raises(InvalidRequest, match="ignore_eos"):
        steered.submit(text("4"), ignore_eos=True)


def test_a_provider_that_is_not_there_is_an_error_and_not_the_cpu(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?i)cuda"):
        build_genai_engine(folder, OPTIONS, ProviderChoice(name="CUDAExecutionProvider", options={"device_id": "0"}))


def test_a_plugin_library_that_is_not_there_is_an_error(folder: Path, tmp_path: Path) -> None:
    choice = ProviderChoice(name="OpenVINOExecutionProvider", library=str(tmp_path / "missing.so"))
    with pytest.raises(RuntimeError, match="missing"):
        build_genai_engine(folder, OPTIONS, choice)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFolder, match=r"genai_config\.json is missing"):
        build_genai_engine(tmp_path, OPTIONS, ProviderChoice())


def test_the_flags_are_those_of_the_build() -> None:
    assert set(genai_flags()) == {"cuda", "dml", "qnn", "openvino", "webgpu"}


def test_nothing_is_written_for_anybody_s_telemetry(folder: Path, tmp_path: Path) -> None:
    """Where onnxruntime and genai would keep a device's identity and what they are about to send."""
    script = (
        "import sys; from pathlib import Path\n"
        "from runtime.engines.genai.library import build_genai_engine\n"
        "from runtime.protocol.messages import EngineOptions, ProviderChoice, Submit\n"
        "from runtime.protocol.request import TextPrompt\n"
        "engine = build_genai_engine(Path(sys.argv[1]), EngineOptions(threads=1), ProviderChoice())\n"
        "engine.add(engine.prepare(Submit(request=1, prompt=TextPrompt(text='4'))))\n"
        "while engine.num_unfinished: engine.step()\n"
        "engine.close()\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    environment = kept | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "leak" not in done.stderr.lower()
    assert list(tmp_path.rglob("*")) == []
