"""The task of a pull: what it reports, what it registers, and how it ends when its source has nothing or its owner cancels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.messages import Start
from jobs.task import JobFailure, JobKind, Stopped, StopReason, TaskContext
from jobs.tasks.pull import KEPT, TASK, PullParams
from model_registry.pull import pull
from model_registry.records import LIVE, Precision
from tests.doubles.heard import RecordingReporter
from tests.doubles.tiny_gguf import GEMMA, Tiny, write_gguf

pytestmark = pytest.mark.model


class Cancelled(RecordingReporter):
    """Its owner cancels it as soon as it imports."""

    def stage(self, name: str) -> None:
        super().stage(name)
        if "importing" in name:
            self.stop = StopReason.CANCEL


def params(source: Path, **changes: object) -> PullParams:
    return PullParams.model_validate({"reference": str(source), "name": "tiny", "precision": "fp32", "trial": False, **changes})


def test_stages_are_numbered_and_the_version_is_live(context: TaskContext, tmp_path: Path) -> None:
    pull(context.registry, str(write_gguf(tmp_path / "first.gguf", GEMMA)), name="tiny", precision=Precision.FP32)
    reporter = RecordingReporter()
    outcome = TASK.run(params(write_gguf(tmp_path / "tiny.gguf", Tiny())), replace(context, reporter=reporter))
    assert outcome.version == "tiny:2"
    assert context.registry.resolve(f"tiny:{LIVE}").number == 2
    assert reporter.stages[0] == "1 of 3: fetching"
    assert reporter.stages[-1] == "3 of 3: publishing"
    assert "2 of 3: importing" in reporter.stages


def test_a_source_that_has_nothing_fails_at_once(context: TaskContext, tmp_path: Path) -> None:
    with pytest.raises(JobFailure) as failed:
        TASK.run(params(tmp_path / "nothing.gguf"), context)
    assert (failed.value.code, failed.value.retryable) == ("source_unavailable", False)


def test_a_cancelled_pull_publishes_nothing_and_says_what_stays(context: TaskContext, tmp_path: Path) -> None:
    reporter = Cancelled()
    with pytest.raises(Stopped):
        TASK.run(params(write_gguf(tmp_path / "tiny.gguf", Tiny())), replace(context, reporter=reporter))
    assert any(KEPT in text for text in reporter.messages)
    assert context.registry.models() == ()
    assert not list((context.registry.home / "staging").iterdir())


def test_only_what_fetches_gets_the_hub_s_token() -> None:
    from jobs.child_process import _fetches

    start = Start(job="a", kind=JobKind.PULL, params={}, home="", folder="")
    assert _fetches(start)
    assert not _fetches(Start(job="a", kind=JobKind.PULL, params={}, home="", folder="", plan=True))
    assert not _fetches(Start(job="a", kind=JobKind.PULL, params={}, home="", folder="", offline=True))
