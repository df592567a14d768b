"""Quantizing a tiny model by jobs in real processes; GPTQ's error; what auto chooses and how it says why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.job import InvalidJob, Job, JobKind, JobStatus
from jobs.job_queue import JobQueue
from jobs.limits import JobLimits
from jobs.tasks.quantization.candidates import GROUPS, Candidate, Tried, choose, ladder
from model_registry.importers.gguf.gptq import best_scales, quantize_gptq, upper_factor
from model_registry.importers.gguf.quantize import Blocks, quantize
from model_registry.pull import pull
from model_registry.records import Precision
from model_registry.registry import Registry
from tests.model_registry.gguf.tiny_gguf import Tiny, write_gguf

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantize")
    with Registry(folder / "home") as registry:
        pull(registry, str(write_gguf(folder / "tiny.gguf", Tiny(context=512))), name="tiny", precision=Precision.FP32)
    return folder / "home"


def ended(home: Path, params: dict[str, Any]) -> Job:
    async def main() -> Job:
        queue = JobQueue(home, JobLimits(threads=1))
        await queue.start()
        try:
            job = await queue.create(JobKind.QUANTIZE, {"model": "tiny", **params})
            async for _ in queue.events(job.id, follow=True):
                pass
            return await queue.job(job.id)
        finally:
            await queue.close()

    job = asyncio.run(main())
    assert job.status is JobStatus.SUCCEEDED, (job.failure, (home / "jobs" / job.id / "log.txt").read_text()[-3000:])
    return job


def test_auto_tries_the_ladder_and_explains_its_choice(home: Path) -> None:
    job = ended(home, {"max_quality_loss": 10})
    assert job.outcome is not None
    tried, why = job.outcome.details["tried"], job.outcome.details["why"]
    assert [each["name"] for each in tried] == ["int8", "int4", "int4-head4"]
    assert "is the fastest of the 3 of 3 builds" in why[-1]
    with Registry(home) as registry:
        version = registry.resolve("tiny-quantized")
    assert {variant.provider_family for variant in version.variants} == {"cpu", "checkpoint"}
    assert version.manifest.parent == "tiny:1"
    assert "| int8 |" in (home / "jobs" / job.id / "work/quantization.md").read_text()
    assert not (home / "jobs" / job.id / "work/builds").exists()


@pytest.mark.parametrize(
    ("params", "precision"),
    [
        ({"precision": "int4", "algorithm": "gptq"}, "int4"),
        ({"precision": "mixed", "int4_layers": ["gate", "up"]}, "mixed"),
        ({"precision": "int8", "block_size": 32, "head_bits": 32}, "int8"),
        ({"precision": "fp32"}, "fp32"),
    ],
)
def test_one_build(home: Path, params: dict[str, Any], precision: str) -> None:
    label = f"made-{precision}"
    job = ended(home, {**params, "output": label})
    with Registry(home) as registry:
        served = registry.resolve(label).variants
    assert precision in {str(variant.precision) for variant in served}
    assert job.outcome is not None
    assert 0.5 < job.outcome.metrics["perplexity_ratio"] < 2
    assert job.outcome.metrics["tokens_per_s_8"] > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"precision": "mixed"},
        {"precision": "int8", "int4_layers": ["up"]},
        {"precision": "int8", "algorithm": "gptq"},
        {"precision": "auto", "block_size": 32},
        {"precision": "fp16"},
        {"model": "nothing"},
        {"output": "No Name"},
    ],
)
def test_what_cannot_be_built_is_refused(home: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        ended(home, wrong)


def test_the_choice_is_the_fastest_within_the_loss() -> None:
    int8 = Tried("int8", 1.0, 150, (100.0, 400.0))
    mixed = Tried("mixed", 1.02, 120, (121.0, 400.0))
    int4 = Tried("int4", 1.1, 100, (150.0, 450.0))
    assert mixed.speed(int8) == pytest.approx(1.1)
    assert choose([int8, mixed, int4], 1.03)[0] is mixed
    assert choose([int8, mixed, int4], 2.0)[0] is int4
    assert choose([int8, mixed, int4], 1.0)[0] is int8
    chosen, why = choose([mixed, int4], 1.0)
    assert chosen is mixed
    assert "None is within" in why[-1]


def test_a_recipe_names_every_matrix_of_the_groups_that_stay() -> None:
    recipe = Candidate(("gate", "up")).recipe(2)
    names = [f"blk.1.{name}" for group in GROUPS.values() for name in group]
    assert [recipe.bits_of(name, is_head=False) for name in names] == [8, 8, 8, 8, 4, 4, 8]
    assert recipe.bits_of("token_embd", is_head=True) == 8
    assert (recipe.block_of(8, 192), recipe.block_of(8, 96), recipe.block_of(4, 64)) == (64, 32, 32)


def values_of(blocks: Blocks) -> Floats:
    low = (blocks.integers & 15).astype(np.float32) - 8
    high = (blocks.integers >> 4).astype(np.float32) - 8
    pairs = np.stack([low, high], -1).reshape(*blocks.scales.shape, -1)
    whole: Floats = (pairs * blocks.scales[..., None]).reshape(len(blocks.scales), -1)
    return whole


def test_gptq_errs_less_on_the_inputs_that_it_knows() -> None:
    chance = np.random.default_rng(0)
    mixing = chance.standard_normal((128, 128)).astype(np.float32) * 0.3 + np.eye(128, dtype=np.float32)
    inputs = chance.standard_normal((1024, 128)).astype(np.float32) @ mixing
    weights = chance.standard_normal((64, 128)).astype(np.float32)

    def error(rounded: Blocks) -> float:
        return float(np.linalg.norm(inputs @ (weights - values_of(rounded)).T))

    upper = upper_factor(inputs.T @ inputs)
    assert error(quantize_gptq(weights, 32, upper)) < 0.8 * error(quantize(weights, 4, 32))
    halves = [quantize_gptq(half, 32, upper) for half in (weights[:32], weights[32:])]
    whole = quantize_gptq(weights, 32, upper)
    np.testing.assert_array_equal(np.concatenate([half.integers for half in halves]), whole.integers)


def test_gptq_survives_channels_that_are_silent_and_blocks_of_zeros() -> None:
    weights = np.zeros((4, 64), np.float32)
    weights[:, 40:] = 1.0
    gram = np.zeros((64, 64), np.float32)
    gram[40:, 40:] = np.eye(24, dtype=np.float32)
    np.testing.assert_allclose(values_of(quantize_gptq(weights, 32, upper_factor(gram))), weights, atol=0.05)
    assert np.isfinite(best_scales(np.zeros((2, 32), np.float32))).all()
