"""The versions that were tested: pinned in constraints.txt within the ranges of pyproject.toml, and used by every installation."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RANGES = [Requirement(line) for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()) for line in lines]
# Where people and machines install from: each line of these that installs this project names the tested versions.
INSTALLERS = ("README.md", "docs/start/install.md", "docs/hardware.md", "Dockerfile", "Makefile")


def pins(path: Path) -> dict[str, list[Version]]:
    """By canonical name; several where they differ by the Python's version."""
    found: dict[str, list[Version]] = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pin = Requirement(line)
            (version,) = [each.version for each in pin.specifier if each.operator == "=="]
            found.setdefault(canonicalize_name(pin.name), []).append(Version(version))
    return found


@pytest.mark.parametrize("requirement", [each for each in RANGES if each.name != PROJECT["name"]], ids=lambda each: each.name)
def test_each_dependency_has_a_tested_version_in_its_range(requirement: Requirement) -> None:
    versions = pins(ROOT / "constraints.txt").get(canonicalize_name(requirement.name))
    assert versions, f"run `make lock`: {requirement.name} is not in constraints.txt"
    assert all(requirement.specifier.contains(version) for version in versions), f"run `make lock`: {requirement} has {versions}"


@pytest.mark.parametrize("client", ["openai2", "openai3"])
def test_each_client_has_a_tested_version(client: str) -> None:
    folder = ROOT / "tests" / "clients" / "quickstarts"
    versions = pins(folder / f"constraints-{client}.txt")
    for line in (folder / f"requirements-{client}.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            wanted = Requirement(line)
            assert all(wanted.specifier.contains(version) for version in versions[canonicalize_name(wanted.name)]), line


def installations(text: str) -> Iterator[str]:
    """Lines that install this project from a copy of its repository."""
    for line in text.splitlines():
        if re.search(r"pip install\b", line) and re.search(r"""(\s|')\.(\[[a-z,]+\])?'?(\s|`|$)""", line):
            yield line


@pytest.mark.parametrize("name", INSTALLERS)
def test_every_installation_takes_the_tested_versions(name: str) -> None:
    lines = list(installations((ROOT / name).read_text()))
    assert lines
    newest = "--upgrade"  # `make test-newest`, whose purpose is another
    wrong = [line for line in lines if not re.search(r"constraints\.txt|\$\(TESTED\)", line) and newest not in line]
    assert wrong == []


def test_lines_that_install_are_recognised() -> None:
    """Else the test above would prove nothing."""
    text = "pip install .\npip install -e '.[dev]'\npip install openai\nsee `pip install '.[tune]'`.\npip install -r x.txt\n"
    assert [line[:14] for line in installations(text)] == ["pip install .", "pip install -e", "see `pip insta"]
