"""A model becomes a version by a job, mostly in its real process: what is refused, what is registered, where aliases point."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jobs.job import Job, JobStatus
from jobs.task import InvalidJob, JobKind
from model_registry.registry import open_registry
from tests.doubles.permissive import EVERYWHERE
from tests.doubles.task_runs import run_task
from tests.doubles.tiny_gguf import GEMMA, Tiny, write_gguf
from tests.jobs.services import job_service

pytestmark = pytest.mark.model


async def ended(home: Path, params: dict[str, Any]) -> Job:
    service = job_service(home, permissions=EVERYWHERE)
    await service.start()
    try:
        job = await service.create(JobKind.CONVERT, params)
        async for _ in service.events(job.id, follow=True):
            pass
        return await service.job(job.id)
    finally:
        await service.close()


def test_a_gguf_file_becomes_a_version(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", Tiny())
    job = asyncio.run(ended(tmp_path / "home", {"source": str(source), "output": "small", "precision": "fp32"}))
    assert (job.status, job.failure) == (JobStatus.SUCCEEDED, None)
    assert job.plan is not None
    assert job.plan.outputs == ("small",)
    assert job.outcome is not None
    assert job.outcome.version == "small:1"
    with open_registry(tmp_path / "home") as registry:
        assert registry.resolve("small").manifest.architecture == "llama"


def test_a_second_version_is_a_candidate_and_live_stays(tmp_path: Path) -> None:
    for index, tiny in enumerate((Tiny(), GEMMA)):
        source = write_gguf(tmp_path / f"{index}.gguf", tiny)
        run_task(tmp_path / "home", JobKind.CONVERT, {"source": str(source), "output": "small", "precision": "fp32"})
    with open_registry(tmp_path / "home") as registry:
        assert (registry.resolve("small").number, registry.resolve("small:candidate").number) == (1, 2)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"source": "what://ever"}, "source"),
        ({"source": "hf://../../etc"}, "source"),
        ({"source": "/tiny.gguf", "output": "No Name"}, "output"),
        ({}, "source"),
    ],
)
def test_what_names_no_model_is_refused(tmp_path: Path, params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        asyncio.run(ended(tmp_path / "home", params))
    assert caught.value.problems[0].param == field


def test_a_damaged_file_fails_the_job_and_leaves_no_version(tmp_path: Path) -> None:
    source = tmp_path / "broken.gguf"
    source.write_bytes(b"GGUF" + bytes(40))
    job = asyncio.run(ended(tmp_path / "home", {"source": str(source)}))
    assert job.status is JobStatus.FAILED
    assert job.failure is not None
    assert job.failure.code == "unsupported_model"
    with open_registry(tmp_path / "home") as registry:
        assert registry.models() == ()
