"""`slmops doctor` and `slmops providers`: fabricated installations, real folders and ports, and both commands for real."""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from runtime.machine.installation import Finding, Package, Status, check_installation
from server.cli import environment as surroundings
from server.cli import maintenance as doctor
from server.cli import maintenance as providers
from server.cli.failures import FAILED

SLMOPS = Package(
    "slmops",
    "0.2.0",
    (
        "onnxruntime>=1.23,<2",
        'onnxruntime-gpu>=1.31; extra == "cuda"',
        'onnxruntime-genai-cuda>=0.18; extra == "cuda"',
        'onnxruntime-ep-webgpu>=0.4; extra == "webgpu"',
    ),
)
ORT = Package("onnxruntime", "1.31.0", in_place=True)
GENAI = Package("onnxruntime-genai", "0.18.0", ("onnxruntime>=1.31.0",), in_place=True)
FOUNDRY = Package("foundry-local-sdk", "2.2.1", ("onnxruntime==1.31.0", "pydantic>=2"))
GPU = Package("onnxruntime-gpu", "1.31.0", in_place=True)
GENAI_CUDA = Package("onnxruntime-genai-cuda", "0.18.0", ("onnxruntime-gpu>=1.31.0",), in_place=True)
DIRECTML = Package("onnxruntime-directml", "1.24.4", in_place=True)


def overwritten(package: Package) -> Package:
    return Package(package.name, package.version, package.requires, in_place=False)


def problems(*packages: Package) -> list[Finding]:
    return [finding for finding in check_installation(packages) if finding.status is Status.PROBLEM]


@pytest.mark.parametrize(
    "packages",
    [
        (SLMOPS, ORT, GENAI, FOUNDRY),
        (SLMOPS, overwritten(ORT), overwritten(GENAI), FOUNDRY, GPU, GENAI_CUDA),
        (SLMOPS, GPU, GENAI_CUDA),
        (SLMOPS, ORT),
    ],
    ids=["default", "cuda over it", "cuda alone", "without engines beside ours"],
)
def test_what_fits_is_no_problem(packages: tuple[Package, ...]) -> None:
    assert problems(*packages) == []


@pytest.mark.parametrize(
    ("packages", "message", "remedy"),
    [
        ((SLMOPS,), "not installed", "pip install onnxruntime"),
        (
            (SLMOPS, overwritten(ORT)),
            "the files of onnxruntime 1.31.0 were overwritten or removed",
            "pip install --force-reinstall --no-deps onnxruntime==1.31.0",
        ),
        (
            (SLMOPS, ORT, overwritten(GPU)),
            "the plain one was installed last",
            "pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.0",
        ),
        (
            (SLMOPS, overwritten(ORT), Package("onnxruntime-gpu", "1.30.0", in_place=True)),
            "at different versions",
            "pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.0",
        ),
        (
            (SLMOPS, overwritten(ORT), DIRECTML),
            "cannot be installed over each other",
            "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-directml==1.24.4",
        ),
        (
            (SLMOPS, overwritten(ORT), overwritten(GPU), DIRECTML),
            "whichever was installed last overwrote",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --force-reinstall --no-deps onnxruntime-directml==1.24.4",
        ),
        (
            (SLMOPS, ORT, GENAI, overwritten(GENAI_CUDA), GPU),
            "onnxruntime-genai 0.18.0 and onnxruntime-genai-cuda 0.18.0 share one import name",
            "pip install --force-reinstall --no-deps onnxruntime-genai-cuda==0.18.0",
        ),
        (
            (SLMOPS, Package("onnxruntime", "1.30.0", in_place=True), GENAI),
            "onnxruntime-genai 0.18.0 requires onnxruntime>=1.31.0, and onnxruntime 1.30.0 is in its place",
            "pip install 'onnxruntime>=1.31.0'",
        ),
        (
            (SLMOPS, Package("onnxruntime", "1.32.0", in_place=True), FOUNDRY),
            "foundry-local-sdk 2.2.1 requires onnxruntime==1.31.0, and onnxruntime 1.32.0 is in its place",
            "pip install 'onnxruntime==1.31.0'",
        ),
        ((SLMOPS, DIRECTML, FOUNDRY), "the two cannot share an environment", "pip uninstall -y foundry-local-sdk"),
    ],
)
def test_what_does_not_fit_is_one_problem_with_one_command(packages: tuple[Package, ...], message: str, remedy: str) -> None:
    (found,) = problems(*packages)
    assert message in found.message
    assert found.remedy == remedy
    assert shlex.split(remedy)[0] == "pip"


def test_following_the_remedy_ends_the_problem() -> None:
    assert problems(SLMOPS, ORT, overwritten(GPU))
    assert not problems(SLMOPS, overwritten(ORT), GPU)


def test_an_extra_is_complete_incomplete_or_not_mentioned() -> None:
    def extras(*packages: Package) -> dict[str, Status]:
        return {each.message: each.status for each in check_installation((SLMOPS, *packages)) if each.subject == "extra"}

    assert extras(ORT, GENAI) == {}
    assert extras(ORT, overwritten(GENAI), GPU, GENAI_CUDA) == {"cuda": Status.OK}
    assert extras(ORT, GPU) == {"cuda is incomplete: onnxruntime-genai-cuda is missing": Status.NOTE}
    assert extras(ORT, Package("onnxruntime-ep-webgpu", "0.4.0")) == {"webgpu": Status.OK}


# ---- around the daemon ----


def test_a_home_is_writable_or_a_folder_above_it_is(tmp_path: Path) -> None:
    assert surroundings.check_home(tmp_path).status is Status.OK
    assert "to be created" in surroundings.check_home(tmp_path / "not" / "yet").message
    (tmp_path / "file").touch()
    assert surroundings.check_home(tmp_path / "file").status is Status.PROBLEM


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_to_is_a_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert surroundings.check_home(tmp_path / "home").status is Status.PROBLEM


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_is_free_or_ours_or_another_programs(taken_port: int) -> None:
    assert surroundings.check_port("127.0.0.1", 0, lambda: False).status is Status.OK
    assert "a daemon answers" in surroundings.check_port("127.0.0.1", taken_port, lambda: True).message
    other = surroundings.check_port("127.0.0.1", taken_port, lambda: False)
    assert other.status is Status.PROBLEM
    assert other.remedy is not None
    assert str(taken_port + 1) in other.remedy


# ---- the commands ----


@pytest.mark.api
def test_doctor_ends_with_code_1_when_something_is_wrong(
    home: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLMOPS_PORT", str(taken_port))
    with pytest.raises(typer.Exit) as ended:
        doctor.doctor(as_json=True)
    assert ended.value.exit_code == FAILED
    findings = {each["subject"]: each for each in json.loads(capsys.readouterr().out)}
    assert findings["port"]["status"] == "problem"
    assert findings["home"]["message"] == f"{home}, to be created"
    assert findings["onnxruntime"]["message"].startswith("onnxruntime")


@pytest.mark.api
def test_doctor_shows_each_remedy_below_the_table(
    home: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLMOPS_PORT", str(taken_port))
    with pytest.raises(typer.Exit):
        doctor.doctor()
    printed = capsys.readouterr().out
    assert "CHECK" in printed
    assert f"to fix it: stop the other program, or choose another: slmops serve --port {taken_port + 1}" in printed


@pytest.mark.api
def test_providers_needs_no_daemon(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    providers.providers()
    assert "PROVIDER" in capsys.readouterr().out
    providers.providers(as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["data"][0]["name"] == "CPUExecutionProvider"
    assert answer["problem"] is None
