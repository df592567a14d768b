"""A version under a name and an alias, when its figures are what they must be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.task import InvalidJob, JobFailure, TaskContext
from jobs.tasks.register import TASK, Bounds, RegisterParams, lacks
from model_registry.artifacts import StagedVariant
from model_registry.database import Database
from model_registry.evaluations import Evaluation, EvaluationStore
from model_registry.records import ANY_PROVIDER, Manifest, Precision, VariantRole
from model_registry.registry import Registry, open_registry
from tests.doubles.heard import RecordingReporter


def publish(registry: Registry, folder: Path, content: str, alias: str) -> str:
    variants = []
    for role in VariantRole:
        path = folder / f"{content}-{role}"
        path.mkdir()
        (path / "weights").write_text(content + role)
        family = "cpu" if role is VariantRole.SERVE else ANY_PROVIDER
        variants.append(StagedVariant(Precision.FP32, family, path, role))
    manifest = Manifest("job:x", "finetune", "llama", 512, parent="base:1", metrics={"loss": 1.5, "f1": 0.1})
    return registry.publish("tuned", manifest, variants, alias=alias).label


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path / "home") as registry:
        publish(registry, tmp_path, "first", "live")
        publish(registry, tmp_path, "second", "candidate")
        yield registry


@pytest.fixture
def context(registry: Registry, tmp_path: Path) -> TaskContext:
    return TaskContext("job-1", registry, tmp_path, RecordingReporter())


def test_an_alias_moves_when_nothing_is_required(registry: Registry, context: TaskContext) -> None:
    outcome = TASK.run(RegisterParams(model="tuned:candidate"), context)
    assert outcome.version == "tuned:2"
    assert (registry.resolve("tuned").number, registry.resolve("tuned:previous").number) == (2, 1)


def test_the_newest_evaluation_decides(registry: Registry, context: TaskContext) -> None:
    with Database(registry.home) as database:
        kept = EvaluationStore(database)
        kept.add(Evaluation("tuned:2", "evaluate", {"f1": 0.9}))
        kept.add(Evaluation("tuned:2", "evaluate", {"f1": 0.4}))
        kept.add(Evaluation("tuned:1", "evaluate", {"f1": 0.8}))
    params = RegisterParams(model="tuned:2", requires={"f1": {"min": 0.5}, "loss": {"max": 2}, "bleu": {"min": 1}})
    with pytest.raises(JobFailure, match=r"f1 is 0\.4, and must be at least 0\.5; bleu was never measured of it") as failure:
        TASK.run(params, context)
    assert failure.value.code == "not_good_enough"
    assert registry.resolve("tuned").number == 1
    with Database(registry.home) as database:
        kept = EvaluationStore(database)
        kept.add(Evaluation("tuned:2", "evaluate", {"f1": 0.6}))
    outcome = TASK.run(RegisterParams(model="tuned:2", requires={"f1": {"min": 0.5}}), context)
    assert dict(outcome.metrics) == {"f1": 0.6}
    assert registry.resolve("tuned").number == 2


def test_it_becomes_a_version_of_another_model_without_its_adapter(registry: Registry, context: TaskContext) -> None:
    params = RegisterParams(model="tuned:2", name="support", alias="stable")
    for _ in range(2):  # a job that was interrupted after it had registered
        assert TASK.run(params, context).version == "support:1"
    made = registry.resolve("support:stable")
    assert (made.manifest.parent, made.manifest.importer) == ("tuned:2", "register")
    folders = {variant.role: variant.folder for variant in made.variants}
    assert folders.keys() == {VariantRole.SERVE, VariantRole.CHECKPOINT}
    assert (folders[VariantRole.SERVE] / "weights").read_text() == "secondserve"
    assert len(registry.resolve("tuned:2").variants) == 3


def test_names_are_checked_before_it_starts(context: TaskContext) -> None:
    with pytest.raises(InvalidJob) as refused:
        TASK.plan(RegisterParams(model="tuned", name="no name"), context)
    assert refused.value.param == "name"
    with pytest.raises(InvalidJob) as refused:
        TASK.plan(RegisterParams(model="tuned", alias="7"), context)
    assert refused.value.param == "alias"
    with pytest.raises(ValidationError, match="give min, max, or both"):
        RegisterParams(model="tuned", requires={"f1": {}})


def test_bounds() -> None:
    assert lacks({"a": Bounds(min=1, max=2)}, {"a": 1.0}) == []
    assert lacks({"a": Bounds(min=1, max=2)}, {"a": 2.5}) == ["a is 2.5, and must be at least 1 and at most 2"]
