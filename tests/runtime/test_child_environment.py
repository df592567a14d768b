"""What processes that the daemon starts are given of its environment."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from runtime.machine.child_environment import allowed, child_environment

SECRETS = (
    *("SLMOPS_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "SSH_AUTH_SOCK"),
    *("GITHUB_TOKEN", "DATABASE_URL", "KUBECONFIG", "GOOGLE_APPLICATION_CREDENTIALS", "NVIDIA_API_KEY", "CUDA_TOKEN"),
    *("TORCH_AUTH_TOKEN", "MY_TEACHER", "SLMOPS_JOBS", "SLMOPS_MODELS", "PGPASSWORD", "PYTHONSTARTUP"),
)
FETCHING = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "SLMOPS_INDEX_URL", "PIP_INDEX_URL", "UV_INDEX_URL")


def test_no_secret_passes_whatever_the_process_is_for() -> None:
    variables = dict.fromkeys(SECRETS, "s")
    for options in ({}, {"network": True}, {"fetches": True, "network": True}):
        assert allowed(variables, **options) == {}


def test_what_computing_needs_passes() -> None:
    names = (
        *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"),
        *("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "ORT_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM", "SystemRoot", "HF_HOME"),
    )
    assert allowed(dict.fromkeys(names, "1")) == dict.fromkeys(names, "1")


def test_addresses_and_tokens_go_only_to_who_downloads() -> None:
    proxies = {"https_proxy": "http://p", "NO_PROXY": "x"}
    variables = proxies | dict.fromkeys(FETCHING, "1")
    assert allowed(variables) == {}
    assert allowed(variables, network=True) == proxies
    assert allowed(variables, network=True, fetches=True) == variables


def test_a_child_runs_the_same_code_and_looks_for_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    made = child_environment()
    assert made["PYTHONPATH"].endswith(f"{os.pathsep}/mine")
    assert made["USE_HUB_KERNELS"] == "NO"
    assert "https_proxy" not in made


def test_every_process_is_started_with_it() -> None:
    """Workers, jobs and their plans, the discovery of providers; and whatever is added."""
    root, without, count = Path(__file__).parents[2], [], 0
    for path in [each for layer in ("server", "jobs", "runtime", "model_registry") for each in (root / layer).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"create_subprocess_exec", "Popen"}:
                count += 1
                given = next((keyword.value for keyword in node.keywords if keyword.arg == "env"), None)
                if "child_environment(" not in ast.unparse(given or ast.Constant("")):
                    without.append(path.name)
    assert (without, count >= 3) == ([], True)
