"""Spellings of kinds, choices and params: what is taken for what, what is refused, and what is suggested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.choices import meant, nearest
from jobs.fields import ReferenceKind
from jobs.param_errors import problems_of
from jobs.task import JobKind, Problem
from jobs.tasks.finetune.parameters import FinetuneParams, Method
from jobs.tasks.kinds import task_for
from jobs.tasks.search.task import SearchParams


def problems(kind: JobKind, **params: Any) -> list[Problem]:
    model = task_for(kind).params
    with pytest.raises(ValidationError) as caught:
        model.model_validate(params)
    return problems_of(caught.value, model, str(kind))


@pytest.mark.parametrize("text", ["finetune", "fine-tune", "fine_tune", "FineTune", "FINE TUNE"])
def test_a_kind_in_any_spelling(text: str) -> None:
    assert JobKind.named(text) is JobKind.FINETUNE


@pytest.mark.parametrize(("text", "expected_text"), [("tune", "'finetune'"), ("eval", "'evaluate'"), ("xyz", "convert, merge")])
def test_what_is_no_kind_is_refused_with_what_was_meant(text: str, expected_text: str) -> None:
    with pytest.raises(ValueError, match=expected_text):
        JobKind.named(text)


def test_a_spelling_of_several_choices_means_none() -> None:
    assert meant("a-b", ["a_b", "ab"]) is None
    assert meant("a_b", ["a_b", "ab"]) == "a_b"
    assert nearest("nothing like it", ["epochs"]) is None


def test_choices_may_be_spelt_in_any_case() -> None:
    params = FinetuneParams.model_validate(
        {"model": "m", "data": "d", "method": "LoRA", "schedule": "Constant-With-Warmup", "learning_rate": "AUTO", "packing": "no"}
    )
    assert (params.method, params.schedule, params.learning_rate, params.packing) == (
        Method.LORA,
        "constant_with_warmup",
        "auto",
        False,
    )


def test_texts_that_are_no_choices_stay_as_they_are() -> None:
    params = FinetuneParams.model_validate({"model": "LoRA", "data": "FULL", "output": "Auto", "targets": ["All-Linear"]})
    assert (params.model, params.data, params.output, params.targets) == ("LoRA", "FULL", "Auto", ["All-Linear"])


def test_a_misspelt_param_is_named_with_what_was_meant() -> None:
    (problem,) = problems(JobKind.FINETUNE, model="m", data="d", epoch=3)
    assert (problem.param, problem.code) == ("epoch", "unsupported_parameter")
    assert "'epochs'" in problem.message
    assert "batch_size" not in problem.message


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        (JobKind.FINETUNE, {"model": "m", "data": "d", "method": "lorra"}, ["method"]),
        (JobKind.FINETUNE, {"model": "m", "data": "d", "learning_rate": "fast"}, ["learning_rate"]),
        (JobKind.FINETUNE, {"model": "m", "data": "d", "targets": 3}, ["targets"]),
        (JobKind.EVALUATE, {"target": {"endpint": "x"}, "data": "d"}, ["target.endpoint", "target.endpint"]),
        (JobKind.EVALUATE, {"target": "m", "data": "d", "metrics": ["F1", "acuracy"]}, ["metrics.1"]),
        (JobKind.REGISTER, {"model": "m", "requires": {"f1": {"mim": 1}}}, ["requires.f1.mim"]),
        (JobKind.DISTIL, {"teacher": "m", "student": {"layer": 3}, "data": "d"}, ["student.layers", "student.layer"]),
    ],
)
def test_problems_name_fields_as_they_were_written(kind: JobKind, params: dict[str, Any], expected: list[str]) -> None:
    assert [problem.param for problem in problems(kind, **params)] == expected


def test_a_choice_that_is_none_is_refused_with_the_choices_and_the_nearest() -> None:
    (problem,) = problems(JobKind.FINETUNE, model="m", data="d", method="lorra")
    assert "'full', 'lora', 'dora' or 'qlora'; did you mean 'lora'" in problem.message


def test_a_problem_within_other_params() -> None:
    assert Problem("rank: too low", param="rank").within("training") == Problem("training.rank: too low", param="training.rank")
    assert Problem("no such param 'x'", param="x").within("params").param == "params.x"


def test_files_of_a_search_are_found_however_its_kind_is_spelt(tmp_path: Path) -> None:
    """Otherwise a path would pass that no folder of the configuration has."""
    for kind in ("finetune", "Fine-Tune"):
        given = {"kind": kind, "params": {"model": "m", "data": str(tmp_path)}, "objective": "loss"}
        assert [each.param for each in SearchParams.references(given) if each.kind is ReferenceKind.FILE] == ["params.data"]


@pytest.mark.parametrize("kind", JobKind)
def test_the_example_of_each_kind_is_valid(kind: JobKind) -> None:
    model = task_for(kind).params
    (example,) = model.model_json_schema()["examples"]
    model.model_validate(example)
