"""The rule of correctness on the real default model: one answer alone, in a batch, on a warm cache, beside a long prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_registry.registry import open_registry
from runtime.engines.onnx.engine import build_onnx_engine
from runtime.protocol.messages import EngineOptions
from tests.doubles.engine_bench import Clock, EngineBench, Outcome

pytestmark = pytest.mark.model

NUM_TOKENS = 24
PROMPTS = (
    "Hi!",
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Count from one to ten, in words, and then count back again.",
    "Translate 'good morning' into French, German, Spanish and Italian.",
    "A farmer has 17 sheep, and all but 9 run away. How many are left? Explain how you came to the answer.",
    "Summarize: " + "The river rises in the hills, crosses the plain and reaches the sea near the old harbour. " * 3,
    "Which of these words does not belong: " + ", ".join(["apple", "pear", "plum", "cherry", "stone", "grape"] * 6) + "?",
)
LONG = "Explain this text. " + "Each step of the engine serves every row that is ready, whatever its age and its length. " * 40
KINDS: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0}, "seeded": {"temperature": 0.9, "top_p": 0.95, "seed": 11}}


@pytest.fixture(scope="module")
def folder(default_home: Path) -> Path:
    with open_registry(default_home) as registry:
        return registry.resolve("smollm2-135m").variants[0].folder


def bench_of(folder: Path, **options: Any) -> EngineBench:
    return EngineBench(build_onnx_engine(folder, EngineOptions(num_slots=10, **options)), Clock())


def tokens_and_text(outcome: Outcome) -> tuple[list[int], str]:
    return outcome.token_ids, outcome.text


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[dict[str, list[tuple[list[int], str]]]]:
    """Each answer by itself, with nothing cached."""
    bench = bench_of(folder, prefix_cache_bytes=0)
    yield {
        kind: [tokens_and_text(bench.answer(prompt, max_tokens=NUM_TOKENS, **params)) for prompt in PROMPTS]
        for kind, params in KINDS.items()
    }
    bench.engine.close()


@pytest.fixture(scope="module")
def bench(folder: Path) -> Iterator[EngineBench]:
    """With a prefix cache, and prompts beside running rows in the smallest chunks."""
    made = bench_of(folder, max_token_gap_s=1e-9)
    yield made
    made.engine.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_a_batch_answers_as_each_request_alone(
    bench: EngineBench, alone: dict[str, list[tuple[list[int], str]]], cache: str, kind: str
) -> None:
    """All eight at once, joined by a long prompt that is chunked between their tokens; the second time, from the cache."""
    numbers = [bench.submit(prompt, max_tokens=NUM_TOKENS, **KINDS[kind]) for prompt in PROMPTS]
    long = bench.submit(LONG, max_tokens=2, temperature=0)
    bench.run()
    assert [tokens_and_text(bench.outcomes[number]) for number in numbers] == alone[kind]
    cached = sum(bench.outcomes[number].end.usage.cached_tokens for number in [*numbers, long])
    if cache == "warm":
        assert cached > 0.9 * bench.outcomes[long].end.usage.prompt_tokens


def test_the_answer_is_one(alone: dict[str, list[tuple[list[int], str]]]) -> None:
    """Else equality above would prove little: the answers are text, and name what the prompts are about."""
    assert "Paris" in alone["greedy"][1][1]
