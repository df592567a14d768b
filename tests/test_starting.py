"""What starts often loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.api
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("server.app", ("torch", "transformers", "olive", "onnxruntime", "onnx", "gguf", "huggingface_hub", "alembic")),
        ("jobs.tasks.convert.task", ("torch", "transformers", "olive", "onnxruntime_genai", "safetensors", "onnx")),
        ("jobs.tasks.olive.task", ("torch", "transformers", "olive", "opentelemetry", "onnxruntime_genai", "yaml")),
        ("server.cli", ("torch", "transformers", "onnxruntime", "onnx", "fastapi", "sqlalchemy", "pydantic", "httpx")),
        ("server.settings.daemon", ("fastapi", "starlette", "sqlalchemy", "numpy")),
        ("runtime.worker.main", ("torch", "transformers", "onnxruntime", "onnx", "fastapi", "sqlalchemy")),
    ],
)
def test_what_starts_often_loads_nothing_heavy(module: str, unwanted: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*sorted({set(unwanted)!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
