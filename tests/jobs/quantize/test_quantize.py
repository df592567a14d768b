"""Quantizing a tiny model, once by a job in a real process: what is built, measured, reported, chosen and refused."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from jobs.job import Job, JobStatus
from jobs.permissions import JobLimits
from jobs.task import InvalidJob, JobKind, Outcome, TaskContext
from jobs.tasks.quantize.parameters import BuildResult, QuantizeParams, choose, requested_candidate
from jobs.tasks.quantize.task import Quantize
from model_registry.conversion.quantizers.recipe import GROUPS
from model_registry.errors import ModelNotFound
from model_registry.records import Variant, VariantRole
from model_registry.registry import open_registry
from tests.doubles.permissive import EVERYWHERE
from tests.doubles.task_runs import TaskRun, planned, run_task
from tests.jobs.services import job_service


def ended(home: Path, params: dict[str, Any]) -> Job:
    async def main() -> Job:
        service = job_service(home, JobLimits(threads=1), permissions=EVERYWHERE)
        await service.start()
        try:
            job = await service.create(JobKind.QUANTIZE, {"model": "tiny", **params})
            async for _ in service.events(job.id, follow=True):
                pass
            return await service.job(job.id)
        finally:
            await service.close()

    job = asyncio.run(main())
    assert job.status is JobStatus.SUCCEEDED, (job.failure, (home / "jobs" / job.id / "log.txt").read_text()[-3000:])
    return job


def quantized(home: Path, params: dict[str, Any]) -> TaskRun:
    """In this process."""
    return run_task(home, JobKind.QUANTIZE, {"model": "tiny", **params})


def test_auto_builds_between_int8_and_int4_and_explains_its_choice(home: Path) -> None:
    """Of random weights no rounding is sure to cost perplexity, so the loss allowed lies between what the two builds lose."""
    found = quantized(home, {"max_quality_loss": 10, "output": "loose"})
    ratios = {each["name"]: each["ratio"] for each in found.outcome.details["tried"]}
    assert ratios.keys() == {"int8", "int4", "int4-head4"}
    assert "is the fastest of the 3 of 3 builds" in found.outcome.details["why"][-1]
    assert not (found.folder / "builds").exists()
    with open_registry(home) as registry:
        version = registry.resolve("loose")
    assert [variant.role for variant in version.variants] == ["serve", "checkpoint"]
    assert version.manifest.parent == "tiny:1"
    assert version.manifest.metrics["speed_over_int8"] > 0


def test_scores_before_and_after(home: Path, tmp_path: Path) -> None:
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"the {n}", "completion": "a cat"}) for n in range(6)))
    options = {"data": str(data), "metrics": ["f1", "perplexity"], "max_tokens": 4, "limit": 5}
    run = quantized(home, {"precision": "fp16", "output": "half", **options})
    metrics = dict(run.outcome.metrics)
    assert metrics["perplexity_ratio"] == pytest.approx(1, abs=1e-3)
    assert metrics["size_bytes"] < 0.7 * metrics["before_size_bytes"]  # but for what is no matrix
    assert metrics["perplexity"] == pytest.approx(metrics["before_perplexity"], rel=1e-2)
    assert metrics["f1"] == metrics["before_f1"]
    folder = run.folder
    assert "| f1 | 0 (0 to 0) | 0 (0 to 0) |" in (folder / "quantization.md").read_text()
    assert [len((folder / f"answers-{who}.jsonl").read_text().splitlines()) for who in ("before", "after")] == [5, 5]
    with open_registry(home) as registry:
        manifest = registry.resolve("half").manifest
    assert manifest.data_sha256
    assert manifest.metrics == metrics


def test_weights_are_rounded_and_measured_for_the_examples_of_a_task(home: Path, tmp_path: Path) -> None:
    data = tmp_path / "examples.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"the {n}", "completion": "a cat"}) for n in range(6)))
    found = {}
    for output, options in (("general", {}), ("special", {"calibration": str(data)})):
        run = quantized(home, {"precision": "int4", "output": output, **options})
        with open_registry(home) as registry:
            version = registry.resolve(output)
        served = next(variant.folder for variant in version.variants if variant.provider_family == "cpu")
        with np.load(served / "smoothing.npz") as factors:
            found[output] = {name: factors[name] for name in factors}
        assert 0.5 < version.manifest.metrics["perplexity_ratio"] < 2
        assert ("calibration_sha256" in version.manifest.parameters) == bool(options)
    assert any((found["general"][name] != found["special"][name]).any() for name in found["general"])
    assert any("6 examples" in sentence for sentence in run.plan.summary)


def test_one_build(home: Path) -> None:
    run = quantized(home, {"precision": "int4", "algorithm": "awq", "head_bits": 4, "output": "made"})
    is_built(home, run.outcome, "int4", "int4-awq-head4")


def test_one_build_by_a_job_in_a_process_of_its_own(home: Path) -> None:
    job = ended(home, {"precision": "mixed", "int4_layers": ["gate", "up"], "head_bits": 16, "output": "made-mixed"})
    assert job.outcome is not None
    is_built(home, job.outcome, "mixed", "mixed-gate4-up4-k-quant-head16")


def is_built(home: Path, outcome: Outcome, precision: str, build: str) -> None:
    assert outcome.version is not None
    with open_registry(home) as registry:
        version = registry.resolve(outcome.version)
    assert precision in {str(variant.precision) for variant in version.variants}
    assert version.manifest.parameters["build"] == build
    assert 0.5 < outcome.metrics["perplexity_ratio"] < 2
    assert outcome.metrics["tokens_per_s_8"] > 0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"precision": "mixed"}, "int4_layers and the precision mixed"),
        ({"precision": "int8", "int4_layers": ["up"]}, "int4_layers and the precision mixed"),
        ({"precision": "int8", "algorithm": "gptq"}, "gptq is for 4 bits"),
        ({"precision": "fp16", "algorithm": "awq"}, "awq is for 4 bits"),
        ({"precision": "int8", "head_bits": 4, "algorithm": "awq"}, "no layer has 4 bits"),
        ({"precision": "auto", "block_size": 32}, "auto makes its own choice"),
        ({"precision": "auto", "symmetry": "symmetric"}, "auto makes its own choice"),
        ({"precision": "fp16", "block_size": 32}, "nothing is an integer"),
        ({"precision": "fp32", "symmetry": "symmetric"}, "nothing is an integer"),
        ({"block_size": 48, "precision": "int4"}, "16, 32, 64 or 128"),
        ({"metrics": ["f1"]}, "data, which is missing"),
        ({"data": "/nowhere.jsonl", "metrics": ["judge"]}, "metrics"),
        ({"data": "/nowhere.jsonl"}, "nowhere"),
        ({"calibration": "/nowhere.jsonl"}, "nowhere"),
        ({"model": "nothing"}, "nothing"),
        ({"output": "No Name"}, "No Name"),
    ],
)
def test_what_cannot_be_built_is_refused(home: Path, wrong: dict[str, Any], why: str) -> None:
    with pytest.raises((InvalidJob, ModelNotFound), match=why):
        planned(home, JobKind.QUANTIZE, {"model": "tiny", **wrong})


def test_a_plan_takes_no_longer_for_the_weights_to_go_on_from(home: Path) -> None:
    """A tuned version holds them beside what is served."""
    with open_registry(home) as registry:
        found = registry.resolve("tiny")

    def planned_s(*variants: Variant) -> float:
        version = replace(found, variants=variants)
        context = SimpleNamespace(registry=SimpleNamespace(resolve=lambda _: version, home=home), offline=False)
        return Quantize().plan(QuantizeParams(model="tiny"), cast(TaskContext, context)).duration_s or 0.0

    tiny = found.variants[0]
    served = replace(tiny, artifacts=(replace(tiny.artifacts[0], size_bytes=300_000_000),))
    weights = replace(served, role=VariantRole.CHECKPOINT)
    assert planned_s(served, weights) == planned_s(served) > planned_s(tiny) > 0


def test_the_choice_is_the_fastest_within_the_loss() -> None:
    int8 = BuildResult("int8", 1.0, 150, (100.0, 400.0))
    mixed = BuildResult("mixed", 1.02, 120, (121.0, 400.0))
    int4 = BuildResult("int4", 1.1, 100, (150.0, 450.0))
    assert mixed.speed(int8) == pytest.approx(1.1)
    assert choose([int8, mixed, int4], 1.03)[0] is mixed
    assert choose([int8, mixed, int4], 2.0)[0] is int4
    assert choose([int8, mixed, int4], 1.0)[0] is int8
    chosen, why = choose([mixed, int4], 1.0)
    assert chosen is mixed
    assert "None is within" in why[-1]


def test_a_recipe_names_every_matrix_of_the_groups_that_stay() -> None:
    recipe = requested_candidate("mixed", ["gate", "up"], 2).recipe
    names = [f"blk.1.{name}" for group in GROUPS.values() for name in group]
    assert [recipe.bits_of(name, is_head=False) for name in names] == [8, 8, 8, 8, 4, 4, 8]
    assert recipe.bits_of("token_embd", is_head=True) == 8
    assert (recipe.block_of(8, 192), recipe.block_of(8, 96), recipe.block_of(4, 64)) == (64, 32, 32)
    wide = requested_candidate("int4", [], 2, block_size=128).recipe
    assert [wide.block_of(4, columns) for columns in (256, 576, 96)] == [128, 64, 32]


def test_a_build_is_named_after_all_that_was_requested() -> None:
    assert requested_candidate("int8", [], 2).name == "int8"
    assert requested_candidate("fp16", [], 2, head_bits=4).name == "fp16-k-quant-head4"
    candidate = requested_candidate("int4", [], 2, algorithm="gptq", block_size=64, is_symmetric=True)
    assert candidate.name == "int4-gptq-b64-symmetric"
    assert (candidate.recipe.rounding_4, candidate.recipe.symmetric_4, candidate.recipe.block_4) == ("gptq", True, 64)
    assert (requested_candidate("fp32", [], 2).recipe.head_bits, requested_candidate("int4", [], 2).recipe.head_bits) == (32, 8)
