"""Distillation of a tiny model: students cut and taught; and by jobs in real processes: answers kept, killed and resumed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from jobs.job import Job, JobStatus
from jobs.permissions import EndpointSource, JobLimits
from jobs.task import InvalidJob, JobKind
from jobs.tasks.distil.parameters import DistilParams
from jobs.tasks.distil.task import _tuning
from model_registry.errors import ModelNotFound
from model_registry.registry import open_registry
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.permissive import EVERYWHERE
from tests.doubles.task_runs import interrupted_run, planned, run_task
from tests.doubles.tiny_gguf import Tiny
from tests.jobs.services import job_service

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # of the training libraries, which jobs pass on to their logs
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRAINING = {"epochs": 2, "batch_size": 4, "served_precision": "fp32", "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Path:
    small = Tiny(layers=2, context=512, metadata={"tokenizer.chat_template": TEMPLATE})
    return kept_homes.tiny(tmp_path_factory.mktemp("distil") / "home", teacher=replace(small, layers=4), small=small)


@pytest.fixture
def requested_candidate(tmp_path: Path) -> dict[str, Any]:
    paths = {}
    for name, numbers in (("data", range(12)), ("validation", range(20, 24))):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"prompt": f"the {n}", "completion": "a cat"}) for n in numbers))
        paths[name] = str(path)
    return {"teacher": "teacher", "max_tokens": 6, "samples": 1, "temperature": 0.0, "filters": {}, "training": TRAINING, **paths}


def ended(home: Path, params: dict[str, Any], *, killed: bool = False) -> Job:
    """killed: the process, at its first checkpoint."""

    async def main() -> Job:
        service = job_service(home, JobLimits(threads=1, retry_after_s=(0.01,)), permissions=EVERYWHERE)
        await service.start()
        try:
            job = await service.create(JobKind.DISTIL, params)
            async for event in service.events(job.id, follow=True):
                if killed and event is not None and event.type == "checkpoint":
                    kill_children()
                    break
            async for _ in service.events(job.id, follow=True):
                pass
            return await service.job(job.id)
        finally:
            await service.close()

    job = asyncio.run(main())
    assert job.status is JobStatus.SUCCEEDED, (job.failure, (home / "jobs" / job.id / "log.txt").read_text()[-3000:])
    return job


def kill_children() -> None:
    for child in psutil.Process().children():
        if "jobs.child" in child.cmdline():
            child.kill()


def weights(home: Path, label: str) -> dict[str, np.ndarray[Any, Any]]:
    from safetensors.numpy import load_file

    with open_registry(home) as registry:
        version = registry.resolve(label)
    folder = next(variant.folder for variant in version.variants if variant.role == "checkpoint")
    return load_file(next(folder.glob("*.safetensors")))


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[name], two[name]) for name in one)


def test_a_student_cut_from_its_teacher_is_taught_and_compared(home: Path, requested_candidate: dict[str, Any]) -> None:
    run = run_task(
        home, JobKind.DISTIL, {**requested_candidate, "student": {"layers": 2}, "logits": {"alpha": 0.7}, "output": "cut"}
    )
    assert run.outcome.details == {"layers": [0, 3], "counts": {"answers": 12, "kept": 12}}
    metrics = run.outcome.metrics
    for name in ("f1", "tokens_per_s_8", "size_bytes", "resident_bytes"):
        assert {name, f"teacher_{name}", f"baseline_{name}"} <= metrics.keys()
    assert metrics["size_bytes"] < metrics["teacher_size_bytes"]
    with open_registry(home) as registry:
        version = registry.resolve("cut")
    assert version.manifest.parent == "teacher:1"
    assert max(int(name.split(".")[2]) for name in weights(home, "cut") if ".layers." in name) == 1
    assert "baseline" in (run.folder / "report.md").read_text()


def test_a_paused_run_sends_nothing_twice_and_ends_with_the_same_student(home: Path, requested_candidate: dict[str, Any]) -> None:
    params = {
        **requested_candidate,
        "student": "small",
        "validation": None,
        "training": {**TRAINING, "epochs": 4, "checkpoint_every": 5},
    }
    run_task(home, JobKind.DISTIL, {**params, "output": "whole"})
    paused = interrupted_run(home, JobKind.DISTIL, {**params, "output": "paused"})
    assert len((paused.folder / "answers.jsonl").read_text().splitlines()) == 12
    assert same(weights(home, "whole"), weights(home, "paused"))


@pytest.mark.thorough  # of this trainer, a process is killed in test_finetune.py
def test_a_killed_run_sends_nothing_twice_and_ends_with_the_same_student(home: Path, requested_candidate: dict[str, Any]) -> None:
    long_enough_to_be_killed = {**TRAINING, "epochs": 60, "checkpoint_every": 10}
    params = {**requested_candidate, "student": "small", "validation": None, "training": long_enough_to_be_killed}
    ended(home, {**params, "output": "undisturbed"})
    killed = ended(home, {**params, "output": "killed"}, killed=True)
    assert killed.attempt == 2
    folder = home / "jobs" / killed.id / "work"
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 12
    assert same(weights(home, "undisturbed"), weights(home, "killed"))


@pytest.mark.parametrize(
    ("wrong", "expected_text"),
    [
        ({"student": {"layers": 4}}, "4 layers"),
        ({"student": "nothing"}, "'nothing' not found"),
        ({"training": {"model": "x"}}, "leave it out"),
        ({"training": {"epoch": 3}}, "training: no such param 'epoch'"),
        ({"filters": {"min_grade": 4}}, "judge"),
        ({"samples": 3}, "all the same"),
        ({"teacher": {"endpoint": "big"}, "logits": {}}, "neither its logits"),
        ({"teacher": {"url": "http://192.0.2.7/v1", "model": "gpt", "allow_remote": True}}, "cannot be set by a job"),
    ],
)
def test_what_cannot_be_taught_is_refused(
    home: Path, requested_candidate: dict[str, Any], wrong: dict[str, Any], expected_text: str
) -> None:
    with pytest.raises((InvalidJob, ModelNotFound), match=expected_text):
        planned(home, JobKind.DISTIL, {**requested_candidate, "student": "small", **wrong})


@pytest.mark.parametrize(
    "useless",
    [{"backend": "olive"}, {"objective": "dpo"}, {"validation": "x"}, {"text_template": "{a}"}, {"loss": "mine"}],
    ids=lambda useless: next(iter(useless)),
)
def test_what_a_distillation_would_pass_over_is_refused_by_name(useless: dict[str, Any]) -> None:
    params = DistilParams(teacher="teacher", student="small", data="-", logits={}, training=useless)
    with pytest.raises(InvalidJob, match=f"training.{next(iter(useless))} has no meaning"):
        _tuning(params, "small")


def test_a_plan_reports_what_a_remote_teacher_costs(home: Path, requested_candidate: dict[str, Any]) -> None:
    async def main() -> tuple[str, ...]:
        endpoints = {"far": EndpointSource("http://192.0.2.7/v1")}
        service = job_service(home, permissions=replace(EVERYWHERE, endpoints=endpoints))
        teacher = {"endpoint": "far", "model": "big", "price_per_million_tokens": 1e6}
        try:
            return (await service.plan(JobKind.DISTIL, {**requested_candidate, "teacher": teacher, "student": "small"})).summary
        finally:
            await service.close()

    (reported,) = [
        sentence for sentence in asyncio.run(main()) if sentence.startswith("Costs at most 72.00 for answers, and about ")
    ]
    assert float(reported.split()[-3]) > 1
