"""The documents name what is there: folders by their docstrings, files by their paths, pages by their headings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[1]
PACKAGES = ("server", "jobs", "runtime", "model_registry")
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
OF_TODAY = [page for page in PAGES if page != "docs/log.md"]  # the log keeps the names of its time
FILES = {path.relative_to(ROOT).as_posix() for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py")}
FOLDERS = {path.rpartition("/")[0] for path in FILES}


def _read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _first_paragraph(folder: str) -> str:
    docstring = ast.get_docstring(ast.parse(_read(f"{folder}/__init__.py"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def test_the_architecture_has_a_line_per_folder() -> None:
    """The one that the folder's docstring begins with."""
    lines = dict(re.findall(r"^\| `(\S+)/` \| (.*) \|$", _read("docs/architecture.md"), re.MULTILINE))
    folders = {folder for folder in FOLDERS if "/" in folder and folder.startswith(PACKAGES)} - {
        "model_registry/migrations/versions"
    }
    assert lines == {folder: _first_paragraph(folder) for folder in folders}


def unknown_files(text: str) -> list[str]:
    """Paths of Python files in code spans that end no file's path."""
    named = re.findall(r"`([\w./]+\.py)`", text)
    return [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in FILES)]


@pytest.mark.parametrize("page", OF_TODAY)
def test_files_that_are_named_are_there(page: str) -> None:
    assert unknown_files(_read(page)) == []


def test_a_file_that_is_gone_is_found() -> None:
    assert unknown_files("`server/app.py`, `server/gone.py`, `pool/handle.py`") == ["server/gone.py"]


def test_files_are_named_with_a_folder() -> None:
    assert [name for name in re.findall(r"`([\w./]+\.py)`", _read("docs/architecture.md")) if "/" not in name] == []


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", _read(page), flags=re.DOTALL)
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        if not target.startswith(("https://", "http://")) and not (linked.exists() and (not anchor or anchor in _anchors(linked))):
            lost.append(target)
    assert lost == []
