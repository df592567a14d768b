"""The layers hold: imports go right only, vendors stay in their places, files stay small, and serving loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("server", "jobs", "runtime", "model_registry")  # imports go right only
MOST_LINES = 300
VENDORS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("fastapi", "starlette", "prometheus_client", "uvicorn", "uvloop", "httptools"): ("server/",),
    ("onnxruntime", "onnx"): ("runtime/engines/", "runtime/providers.py", "model_registry/conversion/", "jobs/tasks/"),
    ("onnxruntime_genai",): ("runtime/engines/genai.py", "jobs/tasks/"),
    ("foundry_local_sdk",): ("runtime/engines/foundry.py", "model_registry/sources/foundry.py"),
    ("sqlalchemy",): ("model_registry/", "jobs/store.py"),
    ("alembic",): ("model_registry/",),
    ("llguidance",): ("runtime/constraints/",),
    ("gguf",): ("model_registry/conversion/",),
    ("huggingface_hub",): ("model_registry/sources/",),
    ("torch", "transformers", "peft", "trl", "olive", "datasets", "accelerate", "optuna"): ("jobs/tasks/",),
    ("tensorboard",): ("jobs/scalar_log.py",),
    ("safetensors", "ml_dtypes"): ("jobs/tasks/", "model_registry/conversion/"),
    ("typer", "rich"): ("server/cli/",),
}
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_right_and_vendors_stay_in_their_places(path: Path) -> None:
    assert wrong_imports(name_of(path), path.read_text(encoding="utf-8")) == []


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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_small_and_say_what_they_own(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= MOST_LINES
    assert ast.get_docstring(ast.parse(source)), "a module says what it owns and what it does not know"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_is_named_after_nothing(path: Path) -> None:
    assert path.stem not in {"utils", "util", "common", "helpers", "misc", "base"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("server.app", ("torch", "transformers", "olive", "onnxruntime", "onnx", "gguf", "huggingface_hub", "alembic")),
        ("jobs.tasks.convert", ("torch", "transformers", "olive", "onnxruntime_genai", "safetensors", "onnx")),
        ("jobs.tasks.olive", ("torch", "transformers", "olive", "opentelemetry", "onnxruntime_genai", "yaml")),
        ("server.cli", ("torch", "transformers", "onnxruntime", "onnx", "fastapi", "sqlalchemy")),
        ("runtime.worker", ("torch", "transformers", "onnxruntime", "onnx", "fastapi", "sqlalchemy")),
    ],
)
def test_what_starts_often_loads_nothing_heavy(module: str, unwanted: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*sorted({set(unwanted)!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
