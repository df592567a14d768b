"""What a job's params may touch: files, folders and endpoints of declared fields, and nothing that is not listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.admission import Admission, Admitted
from jobs.fields import FieldKind, ReferenceKind, replaced
from jobs.permissions import EndpointAccess, EndpointSource, JobPermissions, NotAllowed, path_under
from jobs.task import MAX_MESSAGE_CHARS, InvalidJob, JobKind, Problem
from jobs.tasks.kinds import task_for
from model_registry.errors import InvalidReference
from model_registry.references import parse_reference
from runtime.protocol.framing import Encoder

Admit = Callable[..., Admitted]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("home/exports", "data/inner", "out", "secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/train.jsonl").write_text("{}")
    (tmp_path / "secret/key").write_text("s3cret")
    return tmp_path / "home"


@pytest.fixture
def admit(home: Path) -> Admit:
    def admit(kind: str, params: dict[str, Any], **permissions: Any) -> Admitted:
        admission = Admission(home, JobPermissions(**permissions), lambda id_: f"/files/{id_}/content")
        return admission.admit(params, task_for(JobKind(kind)).params.references(params))

    return admit


def uploads_in(kind: JobKind, params: dict[str, Any]) -> list[str]:
    return [each.name for each in task_for(kind).params.references(params) if each.kind is ReferenceKind.UPLOAD]


DECLARED = {
    "finetune": {"model": FieldKind.VERSION, "data": FieldKind.FILE, "validation": FieldKind.FILE},
    "evaluate": {
        "data": FieldKind.FILE,
        "target.endpoint": FieldKind.ENDPOINT,
        "judge.endpoint": FieldKind.ENDPOINT,
        "against.endpoint": FieldKind.ENDPOINT,
    },
    "distil": {
        "student": FieldKind.VERSION,
        "data": FieldKind.FILE,
        "validation": FieldKind.FILE,
        "teacher.endpoint": FieldKind.ENDPOINT,
        "judge.endpoint": FieldKind.ENDPOINT,
    },
    "quantize": {"model": FieldKind.VERSION, "data": FieldKind.FILE, "calibration": FieldKind.FILE},
    "olive": {"model": FieldKind.VERSION, "workflow": FieldKind.FILE},
    "convert": {"source": FieldKind.SOURCE},
    "pull": {"reference": FieldKind.SOURCE},
    "merge": {"model": FieldKind.VERSION, "adapter": FieldKind.FOLDER},
    "foundry-export": {"model": FieldKind.VERSION, "folder": FieldKind.OUTPUT},
    "benchmark": {"model": FieldKind.VERSION},
    "register": {"model": FieldKind.VERSION},
}


@pytest.mark.parametrize("kind", [kind for kind in JobKind if kind is not JobKind.SEARCH])
def test_each_kind_declares_its_fields(kind: JobKind) -> None:
    """A field whose name sounds like a file, a server or a version is one, so that a new one is not forgotten."""
    model = task_for(kind).params
    params = {name: {"endpoint": "x"} if name in ("target", "teacher", "judge", "against") else "x" for name in model.model_fields}
    found = {each.param: each.field for each in model.references(params)}
    assert found == DECLARED[kind]
    sounding = {
        "model",
        "student",
        "data",
        "file",
        "folder",
        "path",
        "source",
        "workflow",
        "validation",
        "calibration",
        "adapter",
        "url",
        "script",
    }
    assert sounding & set(model.model_fields) <= set(found)


@pytest.mark.parametrize(
    ("kind", "params", "privileged"),
    [
        ("evaluate", {"target": {"endpoint": "teacher"}, "data": "file-a", "judge": "m:1"}, ["target.endpoint"]),
        ("evaluate", {"target": {"endpoint": "@job-1"}, "data": "@job-2"}, ["target.endpoint"]),
        ("foundry-export", {"model": "m", "folder": "@job-1"}, ["folder"]),
        ("convert", {"source": "hf://org/repo"}, ["source"]),
        ("merge", {"adapter": "./adapter"}, ["adapter"]),
        ("merge", {"adapter": "tuned:2", "model": "/etc/passwd"}, []),
        ("search", {"kind": "finetune", "params": {"data": {"$choice": ["file-a", "/data/x"]}}}, ["params.data.$choice.1"]),
    ],
)
def test_what_reaches_beyond_uploads_and_the_registry(kind: str, params: dict[str, Any], privileged: list[str]) -> None:
    references = task_for(JobKind(kind)).params.references(params)
    assert [each.param for each in references if each.is_privileged] == privileged


def test_only_declared_fields_are_files(admit: Admit) -> None:
    params = {"workflow": {"data_configs": [{"user_script": "file-abc"}], "input_model": "file-abc"}, "output": "file-abc"}
    assert admit("olive", params).params == params
    assert uploads_in(JobKind.OLIVE, params) == []
    assert admit("olive", {"workflow": "file-abc"}).params == {"workflow": "/files/file-abc/content"}
    named = {"model": "file-m", "data": "file-a", "validation": "file-b", "text_template": "file-c"}
    assert uploads_in(JobKind.FINETUNE, named) == ["file-a", "file-b"]
    assert admit("finetune", named).params == named | {"data": "/files/file-a/content", "validation": "/files/file-b/content"}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/secret/key",
        "{root}/data/../secret/key",
        "{root}/data/link/key",
        "{root}/data/file",
        "relative.jsonl",
        "~/x.jsonl",
        "/proc/self/environ",
        "{root}/database/x",
        "a\0b",
        "{root}/data/loop/x",
        "",
        "//etc/passwd",
        "{root}/home/files/file-abc/other.jsonl",
    ],
)
def test_no_path_leads_out_of_the_roots(admit: Admit, home: Path, path: str) -> None:
    data = home.parent / "data"
    (data / "link").symlink_to(home.parent / "secret")
    (data / "file").symlink_to(home.parent / "secret/key")
    (data / "loop").symlink_to(data / "loop")
    with pytest.raises(InvalidJob) as caught:
        admit("finetune", {"model": "m", "data": path.format(root=home.parent)}, data_roots=(data,))
    (problem,) = caught.value.problems
    assert (problem.param, problem.code) == ("data", "not_allowed")
    assert "Upload the file to /v1/files and give its id" in problem.message


def test_without_roots_no_path_is_read(admit: Admit, home: Path) -> None:
    for kind, params in (
        ("finetune", {"data": f"{home.parent}/data/train.jsonl"}),
        ("convert", {"source": f"{home.parent}/data"}),
        ("convert", {"source": f"file://{home.parent}/data"}),
        ("convert", {"source": "./data"}),
        ("convert", {"source": "model.gguf"}),
        ("merge", {"adapter": f"{home.parent}/data"}),
        ("merge", {"adapter": "./adapter"}),
    ):
        with pytest.raises(InvalidJob, match=r"jobs\.data_roots"):
            admit(kind, params)


def test_a_path_in_the_roots_comes_with_its_links_followed(admit: Admit, home: Path) -> None:
    data = home.parent / "data"
    (home.parent / "way").symlink_to(data)
    (data / "model.gguf").symlink_to(data / "train.jsonl")
    roots = {"data_roots": (home.parent / "way",)}
    assert admit("finetune", {"data": str(home.parent / "way/train.jsonl")}, **roots).params == {"data": str(data / "train.jsonl")}
    assert admit("convert", {"source": str(data / "model.gguf")}, **roots).params == {"source": str(data / "model.gguf")}
    promised = f"file://{data}/train.jsonl#sha256={'0' * 64}"
    assert admit("convert", {"source": promised}, **roots).params == {"source": promised}
    assert admit("merge", {"adapter": str(data / "inner")}, **roots).params == {"adapter": str(data / "inner")}


def test_names_and_references_are_no_paths(admit: Admit) -> None:
    for kind, params in (
        ("convert", {"source": "smollm2-135m"}),
        ("convert", {"source": "hf://org/repo"}),
        ("merge", {"adapter": "tuned:2"}),
        ("merge", {"adapter": "@job-1"}),
        ("evaluate", {"target": "/etc/passwd"}),
    ):
        assert admit(kind, params).params == params


def test_what_a_search_varies_is_admitted_too(admit: Admit) -> None:
    inner = {"model": "m", "data": {"$choice": ["file-a", "file-b"]}, "text_template": {"$choice": ["file-c"]}}
    params = {"kind": "finetune", "objective": "loss", "params": inner}
    admitted = admit("search", params).params["params"]
    assert admitted == inner | {"data": {"$choice": ["/files/file-a/content", "/files/file-b/content"]}}
    assert uploads_in(JobKind.SEARCH, params) == ["file-a", "file-b"]
    with pytest.raises(InvalidJob) as caught:
        admit("search", {"kind": "finetune", "params": {"data": {"$choice": ["file-a", "/etc/passwd"]}}})
    assert caught.value.param == "params.data.$choice.1"
    assert admit("search", {"kind": "search", "params": {"params": {"data": "/etc/passwd"}}}).params


@pytest.mark.parametrize(
    "folder",
    [
        "/tmp/x",
        "{home}",
        "{home}/models/x",
        "{home}/exports",
        "{home}/exports/../x",
        "{home}/exports/link/x",
        "exports/x",
        "{home}/exports/..",
    ],
)
def test_outputs_stay_in_the_exports_of_the_home(admit: Admit, home: Path, folder: str) -> None:
    (home / "exports/link").symlink_to(home.parent / "secret")
    with pytest.raises(InvalidJob, match=r"or list its folder in jobs\.output_roots"):
        admit("foundry-export", {"model": "m", "folder": folder.format(home=home)})


def test_outputs_may_be_written_where_the_configuration_says(admit: Admit, home: Path) -> None:
    for folder in (home / "exports/new/deep", home.parent / "out/new"):
        roots = {"output_roots": (home.parent / "out",)}
        assert admit("foundry-export", {"folder": str(folder)}, **roots).params == {"folder": str(folder)}


def test_an_endpoint_comes_with_its_own_key_and_only_to_who_names_it(
    admit: Admit, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEACHER_KEY", " s3cret\n")
    endpoints = {
        "teacher": EndpointSource("https://host/v1", key_env="TEACHER_KEY"),
        "filed": EndpointSource("https://host/v1", key_file=home.parent / "secret/key", is_private=True),
        "bare": EndpointSource("http://127.0.0.1/v1"),
        "lacking": EndpointSource("https://host/v1", key_env="NO_SUCH_KEY"),
        "unread": EndpointSource("https://host/v1", key_file=Path("/nowhere/key")),
    }
    params = {"target": {"endpoint": "teacher"}, "judge": {"endpoint": "filed"}, "against": {"endpoint": "bare"}, "data": "file-a"}
    admitted = admit("evaluate", params, endpoints=endpoints)
    assert admitted.grants.endpoints == {
        "teacher": EndpointAccess("https://host/v1", "s3cret"),
        "filed": EndpointAccess("https://host/v1", "s3cret", is_private=True),
        "bare": EndpointAccess("http://127.0.0.1/v1"),
    }
    assert "s3cret" not in repr(admitted)
    for name, why in (("lacking", "NO_SUCH_KEY"), ("unread", "cannot be read"), ("none", "no endpoint 'none'")):
        with pytest.raises(InvalidJob, match=why) as caught:
            admit("evaluate", {"target": {"endpoint": name}}, endpoints=endpoints)
        assert caught.value.param == "target.endpoint"


def test_the_grants_cross_to_the_job_s_process(admit: Admit) -> None:
    from jobs.child import _DECODER
    from jobs.messages import Start

    endpoints = {"e": EndpointSource("http://127.0.0.1/v1")}
    admitted = admit("evaluate", {"target": {"endpoint": "e"}}, endpoints=endpoints, allow_code=True, data_roots=(Path("/data"),))
    start = Start(job="j", kind="evaluate", params=admitted.params, home="h", folder="f", grants=admitted.grants)
    assert _DECODER.decode(Encoder().frame(start)[4:]) == start


def test_texts_are_replaced_where_they_were_found() -> None:
    params = {"a": ["x", {"b": "y"}], "c": "x"}
    assert replaced(params, {("a", 0): "1", ("a", 1, "b"): "2"}) == {"a": ["1", {"b": "2"}], "c": "x"}


def test_a_problem_that_quotes_a_long_text_is_cut() -> None:
    problem = Problem("x" * 10_000_000)
    assert problem.message == "x" * MAX_MESSAGE_CHARS + "..."
    assert Problem("short").message == "short"


@pytest.mark.parametrize("text", ["/" * 8_000_000, "/x" * 4_000_000])
def test_a_long_path_is_not_followed(tmp_path: Path, text: str) -> None:
    """It would take minutes of a thread, and hold up the daemon's end."""
    with pytest.raises(NotAllowed, match="longer than 4096"):
        path_under(text, [tmp_path])
    with pytest.raises(InvalidReference, match="at most 4096"):
        parse_reference(text)
