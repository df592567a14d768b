"""Conversion knows files and weights: of the registry it imports values, errors and the reading of files, never the database."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import model_registry.conversion

ROOT = Path(model_registry.conversion.__file__).parent
MAY_IMPORT = {"chat_templates", "disk", "errors", "folders", "paths", "progress", "records", "telemetry", "text_files"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_values_errors_and_files_are_imported(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = [str(node.module).split(".") for node in nodes if isinstance(node, ast.ImportFrom)]
    ours = {name[1] for name in names if name[0] == "model_registry"}
    assert ours <= MAY_IMPORT | {"conversion"}


@pytest.mark.api
def test_no_database_and_no_network_is_loaded() -> None:
    program = (
        "import sys; from model_registry.conversion import all_importers; all_importers(); "
        "print(*sorted({'sqlalchemy', 'alembic', 'httpx', 'huggingface_hub', 'torch', 'onnxruntime'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parents[1], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
