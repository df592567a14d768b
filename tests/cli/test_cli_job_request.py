"""What the command line reads of a job: params, files of three formats, paths; and kinds without a daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.task import JobKind
from server.cli.failures import CommandFailed
from server.cli.job_files import missing_files, with_whole_paths
from server.cli.job_kinds import described_type, example
from server.cli.job_request import JOB_FIELDS, params_of, read_file
from server.cli.terminal import amount
from tests.cli.conftest import Slmops

DATE = "1979-05-27"


@pytest.mark.parametrize(
    ("kind", "pair", "expected"),
    [
        (JobKind.EVALUATE, "metrics=f1", ["f1"]),
        (JobKind.EVALUATE, "metrics=F1, Exact_Match", ["f1", "exact_match"]),
        (JobKind.EVALUATE, 'metrics=["f1"]', ["f1"]),
        (JobKind.EVALUATE, "metrics=f1,acuracy", ["f1", "acuracy"]),
        (JobKind.EVALUATE, "data=a,b.jsonl", "a,b.jsonl"),
        (JobKind.EVALUATE, 'target={"endpoint": "x"}', {"endpoint": "x"}),
        (JobKind.BENCHMARK, "concurrency=1,8", [1, 8]),
        (JobKind.BENCHMARK, "concurrency=4", [4]),
        (JobKind.FINETUNE, "targets=all-linear", "all-linear"),
        (JobKind.FINETUNE, "targets=q_proj,v_proj", ["q_proj", "v_proj"]),
        (JobKind.FINETUNE, 'targets=["a,b", "c"]', ["a,b", "c"]),
        (JobKind.FINETUNE, "method=LoRA", "lora"),
        (JobKind.FINETUNE, "packing=Yes", True),
        (JobKind.FINETUNE, "packing=off", False),
        (JobKind.FINETUNE, "output=123", "123"),
        (JobKind.FINETUNE, "epochs=3", 3),
        (JobKind.FINETUNE, "epochs=many", "many"),
        (JobKind.FINETUNE, "epoch=3", 3),
        (JobKind.FINETUNE, "text_template={a}={b}", "{a}={b}"),
    ],
)
def test_a_value_is_read_as_its_param_has_it(kind: JobKind, pair: str, expected: Any) -> None:
    (value,) = params_of(kind, [pair]).values()
    assert (value, type(value)) == (expected, type(expected))


def test_what_is_no_pair_is_refused_each() -> None:
    with pytest.raises(CommandFailed) as caught:
        params_of(JobKind.FINETUNE, ["model", "=x", "epochs=1"])
    assert len(caught.value.message.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("job.yaml", "kind: finetune\nparams: {model: m, epochs: 2}\n"),
        ("job.toml", 'kind = "finetune"\n[params]\nmodel = "m"\nepochs = 2\n'),
        ("job.json", '{"kind": "finetune", "params": {"model": "m", "epochs": 2}}'),
        ("job", '{"kind": "finetune", "params": {"model": "m", "epochs": 2}}'),
    ],
)
def test_a_file_in_each_format(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_file(tmp_path / name, JOB_FIELDS) == {"kind": "finetune", "params": {"model": "m", "epochs": 2}}


@pytest.mark.parametrize(
    ("name", "text", "num_problems"),
    [
        ("none.yaml", None, 1),
        ("bad.yaml", "a: [", 1),
        ("bad.toml", "a = ", 1),
        ("bad.json", "{", 1),
        ("list.yaml", "- 1\n", 1),
        ("near.yaml", "kind: finetune\nparam: {}\nmeta: {}\n", 2),
        ("date.yaml", f"kind: finetune\nparams: {{output: {DATE}}}\n", 1),
        ("date.toml", f'kind = "finetune"\nparams = {{ output = {DATE}, beta = nan }}\n', 2),
        ("number.yaml", "kind: finetune\nparams: {1: 2}\n", 1),
    ],
)
def test_a_file_that_is_no_request_is_refused_with_every_problem(
    tmp_path: Path, name: str, text: str | None, num_problems: int
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(CommandFailed) as caught:
        read_file(tmp_path / name, JOB_FIELDS)
    assert (caught.value.exit_code, len(caught.value.message.splitlines())) == (2, num_problems)


def test_paths_begin_from_the_folder_that_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "tiny").write_text("a model")
    params = {"model": "m", "data": "sub/rows.jsonl", "validation": "~/rows.jsonl"}
    assert with_whole_paths(JobKind.FINETUNE, params, tmp_path) == {
        "model": "m",
        "data": str(tmp_path / "sub" / "rows.jsonl"),
        "validation": str(tmp_path / "me" / "rows.jsonl"),
    }
    for source, expected in (("tiny", str(tmp_path / "tiny")), ("smollm2-135m", "smollm2-135m"), ("hf://a/b", "hf://a/b")):
        assert with_whole_paths(JobKind.CONVERT, {"source": source}, tmp_path) == {"source": expected}
    uploaded = {"model": "m", "data": "file-abc"}
    assert with_whole_paths(JobKind.FINETUNE, uploaded, tmp_path) == uploaded
    with pytest.raises(CommandFailed, match="validation"):
        with_whole_paths(JobKind.FINETUNE, {"validation": "~nobody-here/rows.jsonl"}, tmp_path)


def test_each_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    params = {"model": "m", "data": str(tmp_path / "a.jsonl"), "validation": str(tmp_path)}
    first, second = missing_files(JobKind.FINETUNE, params)
    assert (str(tmp_path / "a.jsonl") in first, second.startswith("validation: ")) == (True, True)


def test_kinds_and_their_params_need_no_daemon(slmops: Slmops) -> None:
    assert "quantize" in slmops("jobs", "kinds").out
    shown = slmops("jobs", "kinds", "Fine-Tune")
    assert (shown.code, "full | lora | dora | qlora" in shown.out, "slmops jobs create finetune -p" in shown.out) == (0, True, True)
    assert '"examples"' in slmops("jobs", "kinds", "merge", "--json").out
    assert slmops("jobs", "kinds", "tune").code == 2


@pytest.mark.parametrize(
    ("schema", "name", "expected"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 1024}, "rank", "whole number, 1 to 1,024"),
        ({"type": "number", "exclusiveMinimum": 0}, "timeout_s", "number of seconds, above 0"),
        (
            {"anyOf": [{"const": "auto"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
            "x",
            "auto | list of text",
        ),
        ({"$ref": "#/$defs/X"}, "x", "a | b"),
        ({"type": "string", "format": "file"}, "data", "file"),
        ({}, "x", "any"),
    ],
)
def test_types_in_words(schema: dict[str, Any], name: str, expected: str) -> None:
    assert described_type(schema, {"X": {"enum": ["a", "b"]}}, name) == expected


def test_an_example_is_a_command_line_that_a_shell_reads() -> None:
    line = example(JobKind.EVALUATE, {"target": "m", "metrics": ["f1", "accuracy"], "judge": {"endpoint": "x"}})
    assert line == """slmops jobs create evaluate -p target=m -p metrics=f1,accuracy -p 'judge={"endpoint": "x"}'"""


@pytest.mark.parametrize(
    ("done", "total", "unit", "expected"),
    [
        (0, 92_871_040, "bytes", "0 of 92.9 MB"),
        (45_100_000, 92_871_040, "bytes", "45.1 of 92.9 MB"),
        (512, None, "bytes", "512 B"),
        (3, 18, "steps", "3 of 18 steps"),
        (3, None, "parts", "3 parts"),
    ],
)
def test_amounts_in_their_units(done: int, total: int | None, unit: str, expected: str) -> None:
    assert amount(done, total, unit) == expected


def test_several_problems_are_a_line_each(slmops: Callable[..., Any]) -> None:
    run = slmops("jobs", "create", "finetune", "-p", "one", "-p", "two")
    assert (run.code, run.err.count("error: ")) == (2, 2)
