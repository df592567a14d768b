"""Every client's own quick start, run by its own test runner in its own environment, against a real daemon with the fake engine.

`make test` installs the environments; where one is missing, its clients are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.daemon_process import ROOT, daemon_process

pytestmark = pytest.mark.api

QUICKSTARTS = Path(__file__).parent / "quickstarts"
ENVIRONMENTS = ROOT / ".venv"
PYTEST = ("-m", "pytest", "--config-file", str(QUICKSTARTS / "pytest.ini"))
TIMEOUT_S = 120
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices
    "LANGSMITH_TRACING": "false",
    "LLM_LOAD_PLUGINS": "",
    "NO_PROXY": "*",
}


@pytest.fixture(scope="module")
def fake_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with daemon_process(tmp_path_factory.mktemp("fake-daemon")) as url:
        yield url


def passes(url: str, *command: str | Path, **variables: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLMOPS_", "OPENAI_"))}
    ran = subprocess.run(
        command,
        env={**environment, **QUIET, "SLMOPS_TEST_URL": url, **variables},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    ("client", "openai_version"),
    [("openai", 2), ("openai", 3), ("litellm", 2), ("instructor", 2), ("langchain", 3), ("pydantic_ai", 3), ("llm", 3)],
)
def test_a_python_client(fake_daemon: str, client: str, openai_version: int) -> None:
    environment = ENVIRONMENTS / f"clients-openai{openai_version}"
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        pytest.skip(f"{environment} is not there; `make test` installs it")
    passes(fake_daemon, python, *PYTEST, QUICKSTARTS / f"with_{client}.py")


def test_the_node_client(fake_daemon: str) -> None:
    modules = ENVIRONMENTS / "clients-node" / "node_modules"
    if not modules.exists():
        pytest.skip(f"{modules} is not there; `make test` installs it where npm is")
    passes(fake_daemon, "node", "--test", QUICKSTARTS / "with_openai.cjs", NODE_PATH=str(modules))
