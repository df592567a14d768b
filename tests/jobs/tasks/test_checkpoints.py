"""A version's weights as a checkpoint: made once from the source that is pinned, or refused with the reason."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.child import hold_versions
from jobs.task import Stopped, StopReason, TaskContext
from jobs.tasks.checkpoints import materialise
from jobs.tasks.evaluate.task import EvaluateParams
from model_registry.errors import ChecksumMismatch, InvalidReference, ModelInUse, SourceUnavailable
from model_registry.pull import pull
from model_registry.records import Precision
from model_registry.registry import Registry, open_registry
from tests.doubles.heard import RecordingReporter
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", Tiny())


@pytest.fixture
def registry(tmp_path: Path, source: Path) -> Iterator[Registry]:
    with open_registry(tmp_path / "home") as registry:
        pull(registry, str(source), name="tiny", precision=Precision.FP32)
        yield registry


def context_of(registry: Registry, reporter: RecordingReporter, *, offline: bool = False) -> TaskContext:
    return TaskContext("job-1", registry, registry.home / "work", reporter, offline=offline)


def test_it_is_made_once_with_the_tokenizer_that_is_served(registry: Registry, source: Path) -> None:
    reporter = RecordingReporter()
    folder = materialise(context_of(registry, reporter), "tiny")
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    served = registry.resolve("tiny").variants[0].folder
    assert (folder / "tokenizer.json").read_bytes() == (served / "tokenizer.json").read_bytes()
    assert "writing the checkpoint" in reporter.stages
    source.unlink()
    assert materialise(context_of(registry, RecordingReporter(), offline=True), "tiny:1") == folder


def test_a_version_that_a_job_works_with_is_not_removed(registry: Registry) -> None:
    params = {"data": "/tmp/x.jsonl", "judge": "none", "target": "tiny:1", "rubric": "tiny:1"}
    hold_versions(EvaluateParams.references(params), registry)
    with pytest.raises(ModelInUse, match="tiny:1 is in use"):
        registry.remove("tiny")


def test_a_checkpoint_goes_with_its_version(registry: Registry) -> None:
    folder = materialise(context_of(registry, RecordingReporter()), "tiny")
    registry.collect_garbage()
    assert folder.is_dir()
    registry.remove("tiny")
    registry.collect_garbage()
    assert folder.is_dir(), "a process works with it until its end: this one"
    other = folder.rename(folder.with_name("0" * 32))
    copied = shutil.copytree(other, folder)
    assert registry.collect_garbage() > 1000
    assert not copied.exists()


def test_a_source_that_holds_something_else_by_now_is_refused(registry: Registry, source: Path) -> None:
    write_gguf(source, Tiny(layers=3))
    with pytest.raises(ChecksumMismatch, match="another file"):
        materialise(context_of(registry, RecordingReporter()), "tiny")
    assert not (registry.home / "checkpoints").exists()


def test_a_source_that_is_gone(registry: Registry, source: Path) -> None:
    source.unlink()
    with pytest.raises((SourceUnavailable, InvalidReference)):
        materialise(context_of(registry, RecordingReporter()), "tiny")


def test_a_stop_leaves_nothing_behind(registry: Registry) -> None:
    reporter = RecordingReporter()
    reporter.stop = StopReason.CANCEL
    with pytest.raises(Stopped):
        materialise(context_of(registry, reporter), "tiny")
    assert not (registry.home / "checkpoints").exists()
    assert list((registry.home / "staging").iterdir()) == []
