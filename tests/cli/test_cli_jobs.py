"""`slmops jobs`, `pipeline` and `lineage` against a real daemon, with a real conversion."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from model_registry.database import Database
from model_registry.evaluations import Evaluation, EvaluationStore
from server.cli.job_watch import _Screen, curve
from tests.doubles.daemon_process import PROGRAM, daemon_process, environment
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.api

Slmops = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def variables(home: Path) -> Iterator[dict[str, str]]:
    with daemon_process(home) as url:
        yield environment(home, {"SLMOPS_PORT": url.rpartition(":")[2]})


@pytest.fixture
def slmops(home: Path, variables: dict[str, str]) -> Slmops:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*PROGRAM, *arguments]
        return subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("source") / "tiny.gguf", Tiny())


def test_a_conversion_is_watched_to_its_end_and_reported(slmops: Slmops, source: Path) -> None:
    params = ("-p", f"source={source}", "-p", "output=tiny", "-p", "precision=fp32")
    plan = slmops("jobs", "create", "convert", *params, "--dry-run")
    assert (plan.returncode, "registers: tiny" in plan.stdout) == (0, True), plan.stderr
    assert slmops("jobs", "list").stdout.startswith("no jobs")
    run = slmops("jobs", "create", "convert", *params, "--watch")
    assert run.returncode == 0, run.stderr
    job = run.stdout.splitlines()[0]
    assert "status: The job is succeeded." in run.stdout
    assert "made: tiny:1" in run.stdout
    assert [row["id"] for row in json.loads(slmops("jobs", "list", "--json").stdout)] == [job]
    assert "succeeded" in slmops("jobs", "list").stdout
    assert "made: tiny:1" in slmops("jobs", "show", job).stdout
    assert slmops("jobs", "log", job).returncode == 0
    for named in ((), (job[:10],), (job.removeprefix("job-")[:6],)):
        assert f"{job}: convert, succeeded" in slmops("jobs", "show", *named).stdout
    watched = slmops("jobs", "watch")
    assert (watched.returncode, "made: tiny:1" in watched.stdout, job in watched.stderr) == (0, True, True)
    for verb in ("cancel", "pause", "resume"):
        assert slmops("jobs", verb).returncode == 1, "no job is going on"
    ended = slmops("jobs", "cancel", job)
    assert (ended.returncode, "has ended" in ended.stderr) == (1, True)
    tree = slmops("lineage", "tiny")
    assert "tiny:1" in tree.stdout
    assert json.loads(slmops("lineage", "tiny", "--json").stdout)["label"] == "tiny:1"
    assert slmops("jobs", "rm", job).stdout == f"{job} is deleted\n"


def test_what_cannot_work_is_refused_in_one_line(slmops: Slmops, tmp_path: Path) -> None:
    for arguments in (
        ("jobs", "create", "convert", "-p", "source=what://ever"),
        ("jobs", "create", "convert", "-p", "nothing"),
        ("jobs", "create"),
        ("jobs", "create", "--file", str(tmp_path / "none.json")),
        ("jobs", "show", "job-none"),
        ("jobs", "kinds", "nothing"),
        ("pipeline", str(tmp_path / "none.json")),
    ):
        run = slmops(*arguments)
        assert (run.returncode in (1, 2), run.stderr.count("\n")) == (True, 1), run.stderr


def test_a_local_file_is_uploaded_once(slmops: Slmops, home: Path) -> None:
    rows = home / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"the {n}", "completion": "a cat"}) for n in range(4)))
    for name in ("rows.jsonl", "./rows.jsonl", str(rows)):
        plan = slmops("jobs", "create", "finetune", "-p", "model=tiny", "-p", f"data={name}", "--dry-run")
        assert (plan.returncode, "on 4 examples" in plan.stdout) == (0, True), plan.stderr
    uploaded = [path.name for path in (home / "files").rglob("*.jsonl")]
    assert uploaded == ["rows.jsonl"]
    missing = slmops("jobs", "create", "finetune", "-p", "model=tiny", "-p", "data=none.jsonl", "--dry-run")
    assert (missing.returncode, f"{home}/none.jsonl" in missing.stderr) == (2, True), missing.stderr


def test_a_local_folder_is_converted(slmops: Slmops, home: Path, source: Path) -> None:
    params = ("-p", f"source={source.parent}", "-p", "output=packed", "-p", "precision=fp32")
    run = slmops("jobs", "create", "convert", *params, "--watch")
    assert (run.returncode, "packed:1" in run.stdout) == (0, True), run.stdout + run.stderr
    assert slmops("jobs", "create", "convert", *params, "--dry-run").returncode == 0
    assert [path.name for path in (home / "files").rglob("*.tar")] == [f"{source.parent.name}.tar"], "uploaded once"


def test_a_local_folder_that_reaches_elsewhere_is_not_uploaded(slmops: Slmops, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "special_tokens_map.json").symlink_to("/etc/hostname")
    refused = slmops("jobs", "create", "convert", "-p", f"source={tmp_path}/model", "--dry-run")
    assert (refused.returncode, "cannot be uploaded" in refused.stderr) == (2, True), refused.stderr


def test_a_pipeline_from_a_file(slmops: Slmops, source: Path, tmp_path: Path) -> None:
    steps = [{"name": "convert", "kind": "convert", "params": {"source": str(source), "output": "chained", "precision": "fp32"}}]
    file = tmp_path / "chain.json"
    file.write_text(json.dumps({"steps": steps}))
    run = slmops("pipeline", str(file), "--watch")
    assert (run.returncode, "made: chained:1" in run.stdout) == (0, True), run.stderr
    assert "step 1 of 1 'convert' (convert)" in run.stdout
    watched = slmops("jobs", "watch", run.stdout.splitlines()[0])
    assert (watched.returncode, "made: chained:1" in watched.stdout) == (0, True), watched.stderr


def test_a_step_that_cannot_work_is_named(slmops: Slmops, source: Path, tmp_path: Path) -> None:
    file = tmp_path / "chain.yaml"
    convert = f"{{name: first, kind: convert, params: {{source: {source}, output: stepped}}}}"
    for second, code in (
        ("{name: second, kind: merge, params: {adaptr: tiny}}", 1),
        ("{name: second, kind: finetune, params: {model: tiny, data: nothing.jsonl}}", 2),
        ("{name: second, kind: megre}", 2),
    ):
        file.write_text(f"steps:\n- {convert}\n- {second}\n")
        run = slmops("pipeline", str(file))
        lines = run.stderr.splitlines()
        assert run.returncode == code, run.stderr
        assert lines
        assert all("step 2 'second'" in line for line in lines), run.stderr
    assert not [row for row in json.loads(slmops("jobs", "list", "--json").stdout) if row["metadata"].get("step") == "first"]


def test_a_config_file_whose_data_lies_beside_it(slmops: Slmops, home: Path) -> None:
    (home / "configs").mkdir()
    (home / "configs" / "beside.jsonl").write_text("\n".join(json.dumps({"prompt": f"a {n}", "completion": "b"}) for n in range(3)))
    (home / "configs" / "tune.yaml").write_text("kind: fine-tune\nparams: {model: tiny, data: beside.jsonl, epochs: 5}\n")
    plan = slmops("jobs", "create", "--config", "configs/tune.yaml", "-p", "epochs=2", "--dry-run")
    assert (plan.returncode, "on 3 examples" in plan.stdout, "2.0 passes" in plan.stdout) == (0, True, True), plan.stderr


def test_evaluations_are_shown_and_compared(slmops: Slmops, home: Path, variables: dict[str, str]) -> None:
    details = {"data_sha256": "d" * 64, "num_questions": 4}
    with Database(home) as database:
        kept = EvaluationStore(database)
        for version, scores in (("one:1", [0.0, 0.0, 1.0, 1.0]), ("two:1", [1.0, 1.0, 1.0, 1.0])):
            figures = {"f1": sum(scores) / 4}
            more = {**details, "scores": {"f1": scores}, "intervals": {"f1": [0.0, 1.0]}}
            kept.add(Evaluation(version, "evaluate", figures, more, f"job-{version}"))
    assert "0 to 1" in slmops("eval", "show", "one").stdout
    (row,) = json.loads(slmops("eval", "compare", "one", "two:1", "--json").stdout)
    assert (row["one:1"], row["two:1"], row["difference"]) == (0.5, 1.0, 0.5)
    assert "f1" in slmops("eval", "compare", "one", "two").stdout
    assert slmops("eval", "show", "three").stdout.startswith("nothing was measured")
    assert slmops("eval", "compare", "one", "three").returncode == 1
    url = f"http://127.0.0.1:{variables['SLMOPS_PORT']}/admin/models"
    listed = httpx.get(f"{url}/one/evaluations", trust_env=False).json()["data"]
    assert [(each["version"], each["metrics"], each["num_questions"]) for each in listed] == [("one:1", {"f1": 0.5}, 4)]
    assert (len(listed[0]["warnings"]), "4 questions" in slmops("eval", "show", "one").stderr) == (1, True)
    unknown = httpx.get(f"{url}/one:2/evaluations", trust_env=False)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_kinds_list_their_params(slmops: Slmops) -> None:
    assert "convert" in slmops("jobs", "kinds").stdout
    assert "source" in slmops("jobs", "kinds", "convert").stdout


def test_a_curve_falls_from_its_highest_to_its_lowest_value() -> None:
    lines = curve([4.0, 3.0, 2.0, 1.0], height=2)
    assert [line.split("┤")[1] for line in lines] == ["█▃  ", "██▆▁"]
    assert len(curve(list(map(float, range(1000))), width=60)[0].split("┤")[1]) == 60
    assert curve([1.0])[0].endswith(" ")


def test_a_bar_ends_its_line_and_the_figures_show_the_time_left() -> None:
    screen = _Screen()
    data = {"step": 3, "total": 18, "unit": "steps", "rate": 0.1, "time_left_s": 150.0, "metrics": {"loss": 4.5}}
    screen.show({"type": "stage", "message": "training", "data": {"number": 2, "total": 5}})
    screen.show({"type": "progress", "data": data})
    drawn = Console(width=100, file=io.StringIO(), force_terminal=True, color_system=None)
    with drawn.capture() as caught:
        drawn.print(screen._drawn())
    stage, bar, figures = caught.get().splitlines()
    assert stage.startswith("2 of 5: training · ")
    assert set(bar.strip()) <= set("━╸╺")
    assert figures.strip() == "3 of 18 steps · 2 min left · loss 4.5"
