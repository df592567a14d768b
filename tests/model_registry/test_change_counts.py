"""What is held in memory is read anew when its own tables changed, and only then: a job's progress changes nothing of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs.job import Job, JobEvent, JobStatus, Progress
from jobs.store import JobStore
from jobs.task import JobKind
from model_registry.artifacts import StagedVariant
from model_registry.database import Database
from model_registry.evaluations import Evaluation, EvaluationStore
from model_registry.keys import KeyStore
from model_registry.records import Manifest, Precision
from model_registry.registry import Registry, open_registry
from model_registry.schema import Subject
from model_registry.uploads import FileStore

AT = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path) as database:
        yield database


def publish(registry: Registry, name: str = "tiny", text: str = "one", **manifest: object) -> None:
    with registry.staging() as folder:
        (folder / "weights").write_text(text)
        values = {"source": "x", "importer": "test", "architecture": "llama", "context_length": 8, **manifest}
        registry.publish(name, Manifest(**values), [StagedVariant(Precision.FP32, "cpu", folder)])  # type: ignore[arg-type]


def write_of_jobs(database: Database) -> None:
    """As while a job runs: its progress a hundred times, with events."""
    jobs = JobStore(database)
    job = Job("job-0123456789ab", JobKind.FINETUNE, {}, JobStatus.RUNNING, AT)
    jobs.insert([job])
    for step in range(1, 101):
        event = JobEvent(job.id, step, AT, "progress", "info", "", {})
        jobs.save(replace(job, progress=Progress(step=step)), [event])
    jobs.delete(job.id)


def write_of_files(database: Database) -> None:
    files = FileStore(database)
    files.remove(files.add(io.BytesIO(b"one"), "one.jsonl", "fine-tune").id)


OTHERS: dict[str, Callable[[Database], object]] = {
    "a job's progress": write_of_jobs,
    "a file": write_of_files,
    "an evaluation": lambda database: EvaluationStore(database).add(Evaluation("tiny:1", "evaluate", {"f1": 0.5})),
}


@pytest.mark.parametrize("write", OTHERS.values(), ids=OTHERS)
def test_what_belongs_to_neither_leaves_both_snapshots(database: Database, write: Callable[[Database], object]) -> None:
    registry, keys = Registry(database), KeyStore(database)
    publish(registry)
    keys.create("app", ["read"])
    models, known = registry.snapshot(), keys.all_keys()
    write(database)
    assert registry.snapshot() is models
    assert keys.all_keys() is known


def test_keys_and_models_leave_each_other(database: Database) -> None:
    registry, keys = Registry(database), KeyStore(database)
    models, known = registry.snapshot(), keys.all_keys()
    key = keys.create("app", ["read"]).key
    assert registry.snapshot() is models
    known = keys.all_keys()
    assert known == (key,)
    publish(registry)
    assert keys.all_keys() is known
    assert registry.resolve("tiny").number == 1


MODEL_WRITES: dict[str, Callable[[Registry], object]] = {
    "publish": lambda registry: publish(registry, text="three"),
    "alias": lambda registry: registry.set_alias("tiny", "mine", 1),
    "attach": lambda registry: registry.attach("tiny", "more", "tuned"),
    "detach": lambda registry: registry.detach("tiny", "there"),
    "remove": lambda registry: registry.remove("tiny:1", force=True),
    "remove all": lambda registry: registry.remove("other"),
}
KEY_WRITES: dict[str, Callable[[KeyStore], object]] = {
    "create": lambda keys: keys.create("new", ["read"]),
    "revoke": lambda keys: keys.revoke("app"),
    "remove": lambda keys: keys.remove("app"),
}


@pytest.fixture
def registry(database: Database) -> Registry:
    """Two versions of `tiny`, a model `other`, and an adapter of `tiny`, attached as `there`."""
    registry = Registry(database)
    publish(registry)
    publish(registry, text="two")
    publish(registry, "other")
    with registry.staging() as folder:
        (folder / "adapter_model.safetensors").write_text("adapter")
        manifest = Manifest("x", "finetune", "llama", 8, parent="tiny:2")
        variant = StagedVariant.adapter(folder)
        registry.publish("tuned", manifest, [variant])
    registry.attach("tiny", "there", "tuned")
    return registry


@pytest.mark.parametrize("write", MODEL_WRITES.values(), ids=MODEL_WRITES)
def test_every_change_of_models_by_another_process_is_seen(registry: Registry, write: Callable[[Registry], object]) -> None:
    before = registry.snapshot()
    with open_registry(registry.home) as other:
        write(other)
        assert registry.snapshot().change_count > before.change_count
        assert registry.models() == other.models() != tuple(before.models.values())


@pytest.mark.parametrize("write", KEY_WRITES.values(), ids=KEY_WRITES)
def test_every_change_of_keys_by_another_process_is_seen(
    database: Database, tmp_path: Path, write: Callable[[KeyStore], object]
) -> None:
    keys = KeyStore(database)
    keys.create("app", ["read"])
    before = keys.all_keys()
    with Database(tmp_path) as elsewhere:
        write(KeyStore(elsewhere))
        assert keys.all_keys() == KeyStore(elsewhere).all_keys() != before


def test_the_subjects_are_those_of_the_migration(database: Database) -> None:
    with database.reading() as reader:
        assert [database.change_count(reader, subject) for subject in Subject] == [0] * len(Subject)
