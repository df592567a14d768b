"""Tuning a tiny random model: what is learned and registered; and by jobs in real processes: a killed run ends the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from jobs.datasets.examples import Completion, Conversation
from jobs.job import Job, JobStatus
from jobs.permissions import JobLimits
from jobs.service import JobService
from jobs.task import InvalidJob, JobKind
from jobs.tasks.finetune.material import measure, prepare
from jobs.tasks.finetune.parameters import FinetuneParams
from jobs.tasks.finetune.rendering import IGNORED, Renderer
from jobs.tasks.finetune.task import Finetune
from model_registry.errors import UnsupportedModel
from model_registry.registry import open_registry
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.permissive import EVERYWHERE
from tests.doubles.task_runs import TaskRun, planned, run_task
from tests.doubles.tiny_checkpoint import task_context
from tests.doubles.tiny_gguf import Tiny
from tests.jobs.services import job_service

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # of the training libraries, which jobs pass on to their logs
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LIMITS = JobLimits(threads=1, retry_after_s=(0.01,))
SMALL: dict[str, Any] = {
    "model": "tiny",
    "batch_size": 2,
    "rank": 4,
    "max_length": 64,
    "served_precision": "fp32",
    "learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Path:
    tiny = Tiny(metadata={"tokenizer.chat_template": TEMPLATE})
    return kept_homes.tiny(tmp_path_factory.mktemp("finetune") / "home", tiny=tiny)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"the {n}"}, {"role": "assistant", "content": "a cat"}]} for n in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def in_queue(home: Path, body: Callable[[JobService], Awaitable[Job]]) -> Job:
    async def main() -> Job:
        service = job_service(home, LIMITS, permissions=EVERYWHERE)
        await service.start()
        try:
            return await body(service)
        finally:
            await service.close()

    return asyncio.run(main())


async def ended(service: JobService, job: Job) -> Job:
    async for _ in service.events(job.id, follow=True):
        pass
    return await service.job(job.id)


def tuned(home: Path, params: dict[str, Any], kind: JobKind = JobKind.FINETUNE) -> TaskRun:
    """In this process, which imports the training libraries once for all tests."""
    return run_task(home, kind, params)


def succeeded(home: Path, job: Job) -> str:
    """The label of the version that a job registered."""
    log = home / "jobs" / job.id / "log.txt"
    assert job.status is JobStatus.SUCCEEDED, (job.failure, log.read_text()[-3000:] if log.exists() else "")
    assert job.outcome is not None
    assert job.outcome.version is not None
    return job.outcome.version


def weights(home: Path, label: str, role: str = "checkpoint") -> dict[str, np.ndarray[Any, Any]]:
    from safetensors.numpy import load_file

    with open_registry(home) as registry:
        version = registry.resolve(label)
    folder = next(variant.folder for variant in version.variants if variant.role == role)
    return load_file(next(folder.glob("*.safetensors")))


def history_in(folder: Path) -> list[dict[str, float]]:
    """folder: a job's own."""
    history: list[dict[str, float]] = json.loads((folder / "training.json").read_text())
    return history


def kill_children() -> None:
    for child in psutil.Process().children():
        if "jobs.child" in child.cmdline():
            child.kill()


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("method", ["lora", "dora", "qlora", "full"])
def test_the_loss_falls_and_a_version_is_registered(home: Path, data: Path, method: str) -> None:
    run = tuned(home, {**SMALL, "data": str(data), "method": method, "epochs": 4, "output": f"made-{method}"})
    history = history_in(run.folder)
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 16
    assert losses[-1] < losses[0] * 0.8
    with open_registry(home) as registry:
        version = registry.resolve(run.version)
    roles = [variant.role for variant in version.variants]
    assert roles == ["serve", "checkpoint", *(["adapter"] if method != "full" else [])]
    assert (version.manifest.parent, version.manifest.parameters["method"]) == ("tiny:1", method)
    assert version.manifest.data_sha256
    assert version.manifest.library_versions["trl"]


def test_olive_makes_the_adapter_as_well(home: Path, data: Path) -> None:
    pytest.importorskip("olive", reason="needs `pip install 'slmops[olive]'`")
    run = tuned(home, {**SMALL, "data": str(data), "backend": "olive", "epochs": 4, "output": "by-olive"})
    losses = [entry["loss"] for entry in history_in(run.folder) if "loss" in entry]
    assert len(losses) == 16
    assert losses[-1] < losses[0] * 0.8
    assert "by Olive" in run.plan.summary[0]
    with open_registry(home) as registry:
        version = registry.resolve(run.version)
    assert [variant.role for variant in version.variants] == ["serve", "checkpoint", "adapter"]
    assert version.manifest.parameters["backend"] == "olive"
    assert version.manifest.library_versions["olive-ai"]


def test_a_killed_run_ends_with_the_same_weights(home: Path, data: Path) -> None:
    params = {**SMALL, "data": str(data), "epochs": 30, "checkpoint_every": 10, "dropout": 0.1}

    async def undisturbed(queue: JobService) -> Job:
        return await ended(queue, await queue.create(JobKind.FINETUNE, {**params, "output": "whole"}))

    async def body(service: JobService) -> Job:
        job = await service.create(JobKind.FINETUNE, {**params, "output": "killed"})
        async for event in service.events(job.id, follow=True):
            if event is not None and event.type == "checkpoint":
                kill_children()
                break
        return await ended(service, job)

    whole = succeeded(home, in_queue(home, undisturbed))
    killed = in_queue(home, body)
    assert killed.attempt == 2
    assert (home / "jobs" / killed.id / "tensorboard").is_dir()
    again = succeeded(home, killed)
    assert same(weights(home, whole, "adapter"), weights(home, again, "adapter"))
    assert same(weights(home, whole), weights(home, again))


@pytest.mark.thorough
@pytest.mark.parametrize("changes", [{"method": "dora"}, {"method": "qlora"}, {"method": "full"}, {"backend": "olive"}], ids=str)
def test_each_method_ends_well_in_a_process_of_its_own(home: Path, data: Path, changes: dict[str, Any]) -> None:
    params = {**SMALL, "data": str(data), "epochs": 4, "output": f"alone-{'-'.join(changes.values())}", **changes}

    async def body(queue: JobService) -> Job:
        return await ended(queue, await queue.create(JobKind.FINETUNE, params))

    assert succeeded(home, in_queue(home, body))


@pytest.mark.thorough  # test_training.py pauses each trainer, and the queue's own tests pause processes
def test_a_paused_run_goes_on_where_it_was(home: Path, data: Path) -> None:
    params = {**SMALL, "data": str(data), "epochs": 20, "checkpoint_every": 1000, "output": "paused"}

    async def body(service: JobService) -> Job:
        job = await service.create(JobKind.FINETUNE, params)
        async for event in service.events(job.id, follow=True):
            if event is not None and event.type == "progress":
                break
        paused = await service.pause(job.id)
        assert paused.status is JobStatus.PAUSED
        assert 0 < paused.progress.step < 80
        await service.resume(job.id)
        return await ended(service, job)

    job = in_queue(home, body)
    assert succeeded(home, job)
    history = history_in(home / "jobs" / job.id / "work")
    assert [entry["step"] for entry in history if "loss" in entry] == list(range(1, 81))


def test_preferences_raise_the_margin_and_stop_early(home: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"the {n}", "chosen": "a cat", "rejected": "in in in"} for n in range(8)]
    path = tmp_path / "preferences.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    run = tuned(home, {**SMALL, "data": str(path), "objective": "dpo", "epochs": 3, "learning_rate": 1e-2, "output": "preferring"})
    history = history_in(run.folder)
    margins = [entry["rewards/margins"] for entry in history if "rewards/margins" in entry]
    assert margins[-1] > max(0.0, margins[0])


def test_validation_is_measured_and_ends_early(home: Path, data: Path, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"a {n}"}, {"role": "assistant", "content": "in in"}]} for n in range(2)]
    validation = tmp_path / "validation.jsonl"
    validation.write_text("\n".join(map(json.dumps, rows)))
    params = {**SMALL, "data": str(data), "validation": str(validation), "epochs": 30, "early_stopping": 1, "evaluate_every": 2}
    run = tuned(home, {**params, "learning_rate": 0.1, "output": "stopped"})
    assert "eval_loss" in run.outcome.metrics
    assert history_in(run.folder)[-1]["step"] < 120


def test_an_adapter_is_merged_into_its_base(home: Path, data: Path) -> None:
    label = tuned(home, {**SMALL, "data": str(data), "max_steps": 2, "output": "adapted"}).version
    merged = tuned(home, {"adapter": label, "output": "merged", "precision": "fp32"}, JobKind.MERGE).version
    assert same(weights(home, merged), weights(home, label))
    with pytest.raises(UnsupportedModel):
        planned(home, JobKind.MERGE, {"adapter": "tiny"})


def test_bad_data_is_refused_before_training(home: Path, data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(data.read_text() + '\n{"messages": []}\n{no json')
    with pytest.raises(InvalidJob) as caught:
        planned(home, JobKind.FINETUNE, {**SMALL, "data": str(bad)})
    assert [(each.line, each.code) for each in caught.value.problems] == [(9, "empty"), (10, "not_json")]
    with pytest.raises(InvalidJob, match="raise max_length"):
        planned(home, JobKind.FINETUNE, {**SMALL, "data": str(data), "max_length": 3})
    with pytest.raises(InvalidJob, match="All of its rows are training data"):
        planned(home, JobKind.FINETUNE, {**SMALL, "data": str(data), "validation": str(data)})
    for wrong in ({"early_stopping": 1}, {"loss": "none"}, {"learning_rate": 0.0}, {"max_length": 9999}, {"output": "No Name"}):
        with pytest.raises(InvalidJob):
            planned(home, JobKind.FINETUNE, {**SMALL, "data": str(data), **wrong})


def test_what_can_be_left_out_is_left_out_and_reported_in_the_plan(home: Path, data: Path, tmp_path: Path) -> None:
    rows = data.read_text().splitlines()
    more, validation = tmp_path / "more.jsonl", tmp_path / "validation.jsonl"
    more.write_text("\n".join([*rows, *rows[:3]]))
    validation.write_text("\n".join([rows[0], rows[0].replace("a cat", "a dog")]))
    requested = FinetuneParams(**{**SMALL, "data": str(more), "validation": str(validation)})
    with task_context(tmp_path / "empty") as context, open_registry(home) as registry:
        plan = Finetune().plan(requested, replace(context, registry=registry))
    assert plan.summary[0].startswith("Tunes tiny:1 on 8 examples")
    assert plan.summary[1] == "Measures the loss on 1 examples that are not learned."
    assert plan.warnings == (
        "more.jsonl: 3 lines (9, 10, 11) left out as duplicates of earlier ones.",
        "validation.jsonl: 1 line (1) left out, which are training data: validation must be new to the model.",
    )


@pytest.mark.parametrize("more", [{}, {"packing": True, "max_length": 64}])
def test_a_plan_counts_what_a_tuning_prepares(home: Path, data: Path, more: dict[str, Any]) -> None:
    requested = FinetuneParams(**{**SMALL, "data": str(data), **more})
    with open_registry(home) as registry:
        served = registry.resolve("tiny").variants[0].folder
    sizes, (material, _) = measure(requested, served)[0], prepare(requested, served)
    for name in ("num_examples", "num_tokens", "longest", "num_rows", "left_out"):
        assert getattr(sizes, name) == getattr(material, name)


@pytest.mark.parametrize("more", [{}, {"packing": True, "max_length": 64}])
def test_data_is_tokenized_once_for_plan_and_run(
    home: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    validation = tmp_path / "validation.jsonl"
    validation.write_text(data.read_text().splitlines()[0].replace("a cat", "a dog"))
    requested = FinetuneParams(**{**SMALL, "data": str(data), "validation": str(validation), **more})
    with open_registry(home) as registry:
        served = registry.resolve("tiny").variants[0].folder
    read: list[str] = []
    tokens = Renderer.tokens
    monkeypatch.setattr(Renderer, "tokens", lambda renderer, example: (read.append(str(example)), tokens(renderer, example))[1])
    expected, planned = prepare(requested, served), tmp_path / "planned"
    read.clear()
    measure(requested, served, planned)
    assert len(read) == 9, "by the plan"
    assert prepare(requested, served, planned) == expected
    assert len(read) == 9, "and not by the run"
    data.write_text(data.read_text().replace("the 3", "the 33"))
    changed, _ = prepare(requested, served, planned)
    assert (len(read), changed.sha256 != expected[0].sha256) == (18, True), "a changed file is noticed"
    prepare(requested, served, planned)
    assert len(read) == 18, "nor by the next attempt of a run"


def test_tokens_are_counted_as_they_are_learned_also_when_a_batch_is_not_full(home: Path, data: Path) -> None:
    run = tuned(home, {**SMALL, "data": str(data), "batch_size": 64, "epochs": 3, "output": "counted"})
    with open_registry(home) as registry:
        renderer = Renderer(registry.resolve("tiny").variants[0].folder)
    rows = [json.loads(line)["messages"] for line in data.read_text().splitlines()]
    tokens = sum(len(renderer.tokens(Conversation(1, row)).input_ids) for row in rows)
    assert run.outcome.metrics["trained_tokens"] == 3 * tokens


def test_what_is_learned_is_what_is_answered_and_the_prompt_is_the_served_one(home: Path) -> None:
    with open_registry(home) as registry:
        renderer = Renderer(registry.resolve("tiny").variants[0].folder)
    messages = [
        {"role": "user", "content": "the"},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "in"},
        {"role": "assistant", "content": "the cat"},
    ]
    tokens = renderer.tokens(Conversation(1, messages))
    decode = renderer._tokenizer.decode
    learned = [label for label in tokens.labels if label != IGNORED]
    assert decode(learned).replace("<|im_end|>", "|").split() == ["a", "cat|", "the", "cat|"]
    assert decode(tokens.input_ids) == renderer._text(messages, ())
    plain = renderer.tokens(Completion(1, "", "the cat"))
    assert plain.labels[-1] in (0, 2)
    assert plain.num_learned == len(plain.input_ids)
