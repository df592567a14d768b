"""Another number of threads in the middle of an answer, on the real default model: not a bit of the answer changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_registry.registry import open_registry
from runtime.engines.model_folder import read_model_folder
from runtime.engines.onnx.decoder import OnnxDecoder
from runtime.engines.onnx.engine import build_onnx_engine
from runtime.protocol.messages import EngineOptions
from tests.doubles.engine_bench import Clock, EngineBench

pytestmark = pytest.mark.model

PROMPT = np.arange(100, 140, dtype=np.int32)
NUM_STEPS = 12
PROMPTS = ("Count from one to fifty, in words.", "Write ten sentences about the sea.")


@pytest.fixture(scope="module")
def folder(default_home: Path) -> Path:
    with open_registry(default_home) as registry:
        return registry.resolve("smollm2-135m").variants[0].folder


def logits_of(folder: Path, threads: dict[int, int]) -> NDArray[np.float32]:
    """[1 + NUM_STEPS, vocabulary], whatever the model chose before. threads: set before that step; the prompt is step 0."""
    decoder = OnnxDecoder(read_model_folder(folder), num_slots=1, threads=threads[0], context=128)
    logits = [decoder.prefill(0, PROMPT, 0)[0].copy()]
    for step in range(1, NUM_STEPS + 1):
        if step in threads:
            decoder.set_threads(threads[step])
        token = np.array([1000 + 7 * step], np.int32)
        logits.append(decoder.decode(token, np.array([len(PROMPT) + step]))[0].copy())
    decoder.close()
    return np.stack(logits)


def test_no_bit_of_the_logits_changes(folder: Path) -> None:
    with_two = logits_of(folder, {0: 2})
    switched = logits_of(folder, {0: 1, 4: 2, 8: 1})
    assert np.array_equal(with_two, switched)
    assert len(np.unique(with_two, axis=0)) == 1 + NUM_STEPS, "else equality would prove little"


def test_running_answers_and_what_is_cached_stay(folder: Path) -> None:
    bench = EngineBench(build_onnx_engine(folder, EngineOptions(num_slots=2, threads=2)), Clock())
    alone = [bench.answer(prompt, max_tokens=24, temperature=0).token_ids for prompt in PROMPTS]
    bench.engine.close()

    bench = EngineBench(build_onnx_engine(folder, EngineOptions(num_slots=2, threads=1)), Clock())
    numbers = [bench.submit(prompt, max_tokens=24, temperature=0) for prompt in PROMPTS]
    for num_threads in (2, 1, 2):
        for _ in range(5):
            bench.step()
        bench.engine.set_threads(num_threads)
        assert bench.engine.stats().threads == num_threads
        assert bench.engine.num_unfinished == 2
    bench.run()
    assert [bench.outcomes[number].token_ids for number in numbers] == alone
    assert bench.engine.stats().preemptions_total == 0
    again = bench.answer(PROMPTS[0], max_tokens=24, temperature=0)
    assert again.token_ids == alone[0]
    assert again.end.usage.cached_tokens > 0
    bench.engine.close()
