"""An export loads in Foundry Local's own catalog, and has the same metadata as its models."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.job import Job, JobStatus
from jobs.permissions import JobLimits
from jobs.task import InvalidJob, JobKind, TaskContext
from jobs.tasks.foundry_export import TASK, FoundryExportParams
from model_registry.errors import ModelNotFound
from model_registry.registry import open_registry
from model_registry.sources.foundry import foundry_local
from tests.doubles.heard import RecordingReporter
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.permissive import EVERYWHERE
from tests.doubles.task_runs import planned
from tests.doubles.tiny_gguf import Tiny
from tests.jobs.services import job_service

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Path:
    chat = Tiny(metadata={"tokenizer.chat_template": TEMPLATE})
    return kept_homes.tiny(tmp_path_factory.mktemp("export") / "home", chat=chat, plain=Tiny())


def ended(home: Path, params: dict[str, Any]) -> Job:
    async def main() -> Job:
        service = job_service(home, JobLimits(threads=1), permissions=EVERYWHERE)
        await service.start()
        try:
            job = await service.create(JobKind.FOUNDRY_EXPORT, params)
            async for _ in service.events(job.id, follow=True):
                pass
            return await service.job(job.id)
        finally:
            await service.close()

    job = asyncio.run(main())
    assert job.status is JobStatus.SUCCEEDED, job.failure
    return job


def test_foundry_local_loads_what_was_exported(home: Path, tmp_path: Path) -> None:
    from foundry_local_sdk import CatalogType, ModelInfoBuilder

    target = tmp_path / "exports" / "chat"
    ended(home, {"model": "chat", "folder": str(target), "name": "Mine"})
    assert json.loads((target / "inference_model.json").read_text()) == {
        "Name": "Mine",
        "PromptTemplate": {
            "assistant": "{Content}",
            "prompt": "<|im_start|>user\n{Content}<|im_end|>\n<|im_start|>assistant\n",
        },
    }
    assert [path.name for path in target.parent.iterdir()] == ["chat"]
    with foundry_local(tmp_path / "cache") as manager, ModelInfoBuilder() as about:
        about.set_string_property("task", "chat-completion")
        model = manager.get_catalog(CatalogType.LOCAL).register_model(target, "mine:1", about)
        model.load()
        assert model.is_loaded
        model.unload()


def test_an_attempt_after_the_last_step_finds_what_was_exported(home: Path, tmp_path: Path) -> None:
    params = FoundryExportParams(model="plain", folder=str(tmp_path / "export"))
    with open_registry(home) as registry:
        context = TaskContext("job-1", registry, tmp_path, RecordingReporter())
        first = TASK.run(params, context)
        assert TASK.run(params, context) == first
        (tmp_path / "other").mkdir()
        with pytest.raises(InvalidJob, match="exists"):
            TASK.run(params, TaskContext("job-2", registry, tmp_path / "other", RecordingReporter()))


def test_a_base_model_has_no_prompt_template(home: Path) -> None:
    job = ended(home, {"model": "plain"})
    assert job.outcome is not None
    about = json.loads((Path(job.outcome.details["folder"]) / "inference_model.json").read_text())
    assert about == {"Name": "plain", "PromptTemplate": None}


@pytest.mark.parametrize("wrong", [{"folder": "relative"}, {"folder": "/tmp"}, {"name": "a b"}, {"model": "nothing"}])
def test_what_cannot_be_exported_is_refused(home: Path, wrong: dict[str, str]) -> None:
    with pytest.raises((InvalidJob, ModelNotFound)):
        planned(home, JobKind.FOUNDRY_EXPORT, {"model": "chat", **wrong})
