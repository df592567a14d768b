"""Searches over a real kind; ranges; what is refused; what stays registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.task import InvalidJob, JobFailure, JobKind
from jobs.tasks.search.space import Range, filled, ranges
from model_registry.registry import open_registry
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.task_runs import planned, run_task
from tests.doubles.tiny_gguf import Tiny

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # of the training libraries, which jobs pass on to their logs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Path:
    return kept_homes.tiny(tmp_path_factory.mktemp("search") / "home", tiny=Tiny())


@pytest.fixture
def requested_candidate(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"the {n}", "completion": "a cat"}) for n in range(4)))
    tuning = {"model": "tiny", "data": str(path), "batch_size": 2, "epochs": 1, "served_precision": "fp32"}
    varied = {"learning_rate": {"$float": [1e-4, 1e-1, "log"]}, "rank": {"$choice": [2, 4]}}
    return {"kind": "finetune", "params": {**tuning, **varied}, "objective": "loss", "trials": 3, "output": "found"}


def test_the_best_trial_stays_and_the_plot_shows_all(home: Path, requested_candidate: dict[str, Any]) -> None:
    run = run_task(home, JobKind.SEARCH, requested_candidate)
    assert run.outcome.details["num_complete"] == 3
    with open_registry(home) as registry:
        made = [model.name for model in registry.models() if model.name.startswith("found-")]
        assert made == [run.version.partition(":")[0]]
    report = (run.folder / "search.html").read_text()
    assert report.count("<tr>") == 4
    assert "learning_rate" in report


def test_a_figure_that_does_not_exist_is_reported_with_those_that_do(home: Path, requested_candidate: dict[str, Any]) -> None:
    with pytest.raises(JobFailure) as caught:
        run_task(home, JobKind.SEARCH, {**requested_candidate, "objective": "beauty"})
    assert (caught.value.code, "train_s" in caught.value.message) == ("no_objective", True)


@pytest.mark.parametrize(
    ("wrong", "expected_text"),
    [
        ({"kind": "search"}, "of the kind search"),
        ({"kind": "pull", "params": {"reference": "hf://org/model"}}, "of the kind pull"),
        ({"params": {"model": "tiny", "data": "/x"}}, "Nothing varies"),
        ({"params": {"rank": {"$int": [4, 2]}}}, "low, high"),
        ({"params": {"rank": {"$choice": []}}}, "plain values"),
        ({"params": {"rank": {"$int": [2, 4]}}}, "params.model"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    home: Path, requested_candidate: dict[str, Any], wrong: dict[str, Any], expected_text: str
) -> None:
    with pytest.raises(InvalidJob, match=expected_text):
        planned(home, JobKind.SEARCH, {**requested_candidate, **wrong})


def test_ranges_are_found_wherever_they_stand_and_filled() -> None:
    params = {"a": {"$float": [0.1, 1]}, "b": {"c": {"$int": [1, 8, "log"]}}, "d": {"$choice": ["x", None]}, "e": 3}
    assert list(ranges(params)) == [
        Range("a", "float", 0.1, 1),
        Range("b.c", "int", 1, 8, is_log=True),
        Range("d", "choice", values=("x", None)),
    ]
    assert filled(params, lambda each: each.first) == {"a": 0.1, "b": {"c": 1}, "d": "x", "e": 3}
    for wrong in ({"$float": [1]}, {"$float": [0, 1, "log"]}, {"$int": [1, 2.5]}, {"$float": [1, 2, "lin"]}, {"$choice": [{}]}):
        with pytest.raises(ValueError, match="takes"):
            list(ranges({"a": wrong}))
