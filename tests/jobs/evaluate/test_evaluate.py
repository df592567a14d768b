"""Evaluations and benchmarks by jobs in real processes, with a tiny real model and a real server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.job import Job, JobStatus
from jobs.permissions import EndpointSource, JobLimits
from jobs.task import InvalidJob, JobKind
from jobs.tasks.benchmark.task import regressions
from model_registry.database import Database
from model_registry.errors import ModelNotFound
from model_registry.evaluations import Evaluation, EvaluationStore
from server.settings.daemon import Settings
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.live_server import LiveServer
from tests.doubles.permissive import EVERYWHERE
from tests.doubles.task_runs import planned
from tests.doubles.tiny_gguf import Tiny
from tests.jobs.services import job_service

TEMPLATE = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Path:
    tiny = Tiny(layers=1, metadata={"tokenizer.chat_template": TEMPLATE})
    return kept_homes.tiny(tmp_path_factory.mktemp("evaluate") / "home", tiny=tiny, other=replace(tiny, layers=2))


@pytest.fixture
def data(tmp_path: Path) -> str:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"the {n}", "completion": "a cat"}) for n in range(12)))
    return str(path)


def ended(home: Path, kind: JobKind, params: dict[str, Any], **endpoints: EndpointSource) -> Job:
    async def main() -> Job:
        service = job_service(home, JobLimits(threads=1), permissions=replace(EVERYWHERE, endpoints=endpoints))
        await service.start()
        try:
            job = await service.create(kind, params)
            async for _ in service.events(job.id, follow=True):
                pass
            return await service.job(job.id)
        finally:
            await service.close()

    job = asyncio.run(main())
    log = home / "jobs" / job.id / "log.txt"
    assert job.status is JobStatus.SUCCEEDED, (job.failure, log.read_text()[-3000:])
    return job


def metrics_of(job: Job) -> dict[str, float]:
    assert job.outcome is not None
    return dict(job.outcome.metrics)


def test_a_version_is_measured_kept_and_reported(home: Path, data: str) -> None:
    requested = ["exact_match", "f1", "perplexity", "bleu", "rouge_l"]
    job = ended(home, JobKind.EVALUATE, {"target": "tiny", "data": data, "metrics": requested, "max_tokens": 8, "against": "other"})
    metrics = metrics_of(job)
    assert metrics.keys() == set(requested)
    assert metrics["perplexity"] > 10  # of a random model
    with Database(home) as database:
        kept = EvaluationStore(database)
        (found,) = kept.of("tiny:1", "evaluate")
        assert kept.of("tiny") == [found]
        assert kept.of("tin") == []
        (other,) = kept.of("other:1", "evaluate")
    assert (other.job, other.metrics.keys()) == (job.id, set(requested) - {"perplexity"}), "who was compared with is kept too"
    assert (found.job, found.metrics, len(found.details["scores"]["f1"])) == (job.id, metrics, 12)
    folder = home / "jobs" / job.id / "work"
    assert "other:1" in (folder / "report.md").read_text()
    assert "<svg" in (folder / "report.html").read_text()


def test_answers_that_are_kept_are_not_requested_again(home: Path, data: str, tmp_path: Path) -> None:
    from jobs.tasks.evaluate.questions import kept_answers

    path = tmp_path / "answers.jsonl"
    whole = json.dumps({"number": 3, "text": "x", "calls": [["f", {"a": 1}]]})
    path.write_text(f'{whole}\n{{"number": 4, "te')
    assert list(kept_answers(path)) == [3]
    assert path.read_text() == f"{whole}\n"
    assert kept_answers(path)[3].calls == (("f", {"a": 1}),)


def test_a_server_is_a_target_and_a_judge(home: Path, data: str, tmp_path: Path) -> None:
    with LiveServer(Settings(engine="fake", home=tmp_path / "fake", port=0)) as server:
        endpoint = {"endpoint": "fake"}
        params = {"target": endpoint, "against": "tiny", "judge": endpoint, "data": data, "max_tokens": 4}
        job = ended(
            home, JobKind.EVALUATE, {**params, "metrics": ["f1", "win_rate"], "limit": 5}, fake=EndpointSource(f"{server.url}/v1")
        )
    metrics = metrics_of(job)
    assert metrics["win_rate"] == 0.5  # the judge only echoes
    assert job.outcome is not None
    assert job.outcome.details["target"].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("wrong", "expected_text"),
    [
        ({"metrics": ["judge"]}, "need a judge"),
        ({"metrics": ["win_rate"], "judge": "tiny"}, "needs against"),
        ({"metrics": ["tool_call_match"]}, "questions with tools"),
        ({"metrics": ["magic"]}, "metrics"),
        ({"target": {"url": "http://192.0.2.1/v1", "key_env": "PATH"}}, r"url and key_env cannot be set by a job: add \[endpoints"),
        ({"target": {"endpoint": "nobody"}}, "no endpoint 'nobody'"),
        ({"target": "nothing"}, "'nothing' not found"),
        ({"data": "/none.jsonl"}, "no such file"),
    ],
)
def test_what_cannot_be_measured_is_refused(home: Path, data: str, wrong: dict[str, Any], expected_text: str) -> None:
    with pytest.raises((InvalidJob, ModelNotFound), match=expected_text):
        planned(home, JobKind.EVALUATE, {"target": "tiny", "data": data, **wrong})


def test_a_benchmark_is_kept_and_compared_with_the_last(home: Path) -> None:
    params = {"model": "tiny", "concurrency": [1, 2], "prompt_words": [4], "max_tokens": 4, "requests": 2, "rounds": 3}
    first = ended(home, JobKind.BENCHMARK, params)
    metrics = metrics_of(first)
    assert metrics["tokens_per_s@2x4"] > 0
    assert metrics["ttft_p50_s@1x4"] > 0
    assert metrics["resident_bytes"] > 1 << 20
    second = ended(home, JobKind.BENCHMARK, params)
    assert second.outcome is not None
    assert second.outcome.details["compared_with"] == "tiny:1"


def test_a_figure_is_worse_only_beyond_the_noise() -> None:
    figures = {"tokens_per_s@1x4": 100.0, "ttft_p50_s@1x4": 0.1}
    before = Evaluation("m:1", "benchmark", figures, {"spreads": {"ttft_p50_s@1x4": 0.1}})
    quiet = {"tokens_per_s@1x4": 0.01, "ttft_p50_s@1x4": 0.01}
    worse = regressions(before, {"tokens_per_s@1x4": 90.0, "ttft_p50_s@1x4": 0.12}, quiet)
    assert worse == ["tokens_per_s@1x4 is 10% worse than of m:1: 90 against 100."]
    assert regressions(before, {"tokens_per_s@1x4": 200.0, "ttft_p50_s@1x4": 0.05, "leaked_bytes": 0.0}, quiet) == []
    assert regressions(before, {"leaked_bytes": 2e8}, {}) == ["Memory grew by 200 MB from round to round."]
