"""A job looks for no compiled code on the hub, though the package that would is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.api

ROOT = Path(__file__).parents[3]
PROGRAM = """
import importlib.util, os
from jobs.tasks.vendors.hugging_face import use_no_hub_kernels
assert importlib.util.find_spec("kernels") is not None
use_no_hub_kernels()
assert importlib.util.find_spec("kernels") is None  # as transformers checks
try:
    from kernels import get_kernel  # as bitsandbytes does
except ImportError:
    print("none", os.environ["USE_HUB_KERNELS"])
"""


def test_the_package_is_not_found_by_imports(tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nget_kernel = print\n")
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["none", "NO"], run.stderr
    assert not (tmp_path / "imported").exists()
