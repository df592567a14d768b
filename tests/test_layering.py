"""The layers hold: imports go right only, vendors stay in their places, and files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[1]
LAYERS = ("server", "jobs", "runtime", "model_registry")  # imports go right only
MOST_LINES = 300
KINDS_KNOW = (  # of jobs
    "jobs.task",
    "jobs.choices",
    "jobs.fields",
    "jobs.param_errors",
    "jobs.permissions",
    "jobs.process_limits",
    "jobs.datasets",
    "jobs.tasks",
)
VENDORS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("fastapi", "starlette", "prometheus_client", "uvicorn", "uvloop", "httptools"): ("server/",),
    ("onnxruntime", "onnx"): ("runtime/engines/", "runtime/machine/providers.py", "model_registry/conversion/", "jobs/tasks/"),
    ("onnxruntime_genai",): ("runtime/engines/genai/library.py", "jobs/tasks/"),
    ("foundry_local_sdk",): ("runtime/engines/foundry/sessions.py", "model_registry/sources/foundry.py"),
    ("sqlalchemy",): ("model_registry/", "jobs/store.py"),
    ("alembic",): ("model_registry/",),
    ("llguidance",): ("runtime/text/constraints/",),
    ("gguf",): ("model_registry/conversion/",),
    ("huggingface_hub",): ("model_registry/sources/",),
    ("torch", "transformers", "peft", "trl", "olive", "datasets", "accelerate", "optuna"): ("jobs/tasks/",),
    ("tensorboard",): ("jobs/reporter.py",),
    ("safetensors", "ml_dtypes"): ("jobs/tasks/", "model_registry/conversion/"),
    ("typer", "rich"): ("server/cli/",),
}
EMPTY_NAMES = {"utils", "util", "common", "helpers", "misc", "base"}
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
}


def imports_of(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything imported, at the top or inside functions. package: dotted, for relative imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield node.lineno, ".".join([*above, *filter(None, [node.module])])
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, name) for name in _named_by(node))


def _named_by(call: ast.Call) -> list[str]:
    """The module that `import_module("x")` or `__import__("x")` names."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    constants = [node.value for node in call.args[:1] if isinstance(node, ast.Constant)]
    return [str(name) for name in constants if function in {"import_module", "__import__"}]


def wrong_imports(path: str, source: str) -> list[str]:
    """What this file may not import, each with its line and the reason."""
    layer = path.split("/")[0]
    wrong = []
    for line, imported in imports_of(source, ".".join(Path(path).parent.parts)):
        top = imported.split(".")[0]
        if top in LAYERS and LAYERS.index(top) < LAYERS.index(layer):
            wrong.append(f"{path}:{line} imports {imported}: {layer} lies right of {top}")
        for vendors, places in VENDORS.items():
            if top in vendors and not path.startswith(places):
                wrong.append(f"{path}:{line} imports {imported}: only {' and '.join(places)} may")
    return wrong


def test_imports_go_right_and_vendors_stay_in_their_places() -> None:
    assert len(SOURCES) > 100
    assert [wrong for path, source in SOURCES.items() for wrong in wrong_imports(path, source)] == []


def wrong_imports_of_jobs(path: str, source: str) -> list[str]:
    """Kinds of work know their contract, and nothing of how jobs are run; what runs jobs knows no kind."""
    found = [(line, name) for line, name in imports_of(source, ".".join(Path(path).parent.parts)) if name.startswith("jobs.")]
    if path.startswith("jobs/tasks/"):
        return [
            f"{path}:{line} imports {name}"
            for line, name in found
            if not f"{name}.".startswith(tuple(f"{each}." for each in KINDS_KNOW))
        ]
    return [f"{path}:{line} imports {name}" for line, name in found if f"{name}.".startswith("jobs.tasks.")]


def test_the_job_service_and_the_kinds_of_jobs_know_each_other_by_their_contract() -> None:
    assert [
        wrong for path, source in SOURCES.items() if path.startswith("jobs/") for wrong in wrong_imports_of_jobs(path, source)
    ] == []


def test_imports_within_jobs_are_seen() -> None:
    """Else the test above would pass on anything."""
    source = "from jobs.task import Task\nfrom jobs.tasks.finetune import task\nfrom jobs.store import JobStore\n"
    assert [line.split(":")[1].split()[0] for line in wrong_imports_of_jobs("jobs/tasks/merge.py", source)] == ["3"]
    assert [line.split(":")[1].split()[0] for line in wrong_imports_of_jobs("jobs/service.py", source)] == ["2"]


def test_the_walk_sees_every_kind_of_import() -> None:
    """Else the test above would pass on anything."""
    source = """
import server.app
from runtime import pool
from ..jobs import queue
def inside():
    from onnxruntime import InferenceSession
    import importlib
    importlib.import_module("torch")
"""
    wrong = wrong_imports("model_registry/some/place.py", source)
    assert [line.split(":")[1].split()[0] for line in wrong] == ["2", "3", "6", "8"]
    assert wrong_imports("server/place.py", "import fastapi, runtime.pool, jobs") == []


def test_relative_imports_are_followed() -> None:
    assert list(imports_of("from ...server import x", "runtime.batching.inner")) == [(1, "runtime.server")]
    assert list(imports_of("from . import x", "runtime.batching")) == [(1, "runtime.batching")]


def test_files_are_small() -> None:
    lengths = {path: source.count("\n") for path, source in SOURCES.items()}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


def test_modules_say_what_they_own_and_what_they_do_not_know() -> None:
    assert [path for path, source in SOURCES.items() if not ast.get_docstring(ast.parse(source))] == []


def test_no_file_is_named_after_nothing() -> None:
    assert [path for path in SOURCES if Path(path).stem in EMPTY_NAMES] == []
