"""Holds: real locks of real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model_registry.errors import ModelInUse
from model_registry.pull import pull
from model_registry.registry import Registry
from model_registry.staging import is_held
from tests.doubles.registry_graphs import write_genai_folder

pytestmark = pytest.mark.api

HOLDER = """
import sys
from pathlib import Path
from model_registry.staging import hold
hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_hold_lasts_as_long_as_its_process_and_keeps_the_version(registry: Registry, tmp_path: Path) -> None:
    version = pull(registry, str(write_genai_folder(tmp_path / "origin")), name="tiny")
    folder = version.variants[0].folder
    assert not is_held(folder)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert is_held(folder)
        with pytest.raises(ModelInUse, match="tiny:1"):
            registry.remove("tiny")
        holder.kill()
        holder.wait()
    assert not is_held(folder)
    assert registry.remove("tiny") > 0
    assert not is_held(folder)
