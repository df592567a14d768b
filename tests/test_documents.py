"""The documents: reference pages are those of the code, the site builds strictly, and links of other pages lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from docs.generators.pages import FOLDER, PAGES

ROOT = Path(__file__).parents[1]
PACKAGES = ("server", "jobs", "runtime", "model_registry")
OUTSIDE = ("README.md", "CONTRIBUTING.md")  # of the site, whose own links its build checks
SOURCES = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


@pytest.mark.api
@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_that_of_the_code(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`, and commit docs/reference"


@pytest.mark.api
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """Strictly: every link and anchor leads somewhere, and every page is in the navigation."""
    if find_spec("material") is None:
        pytest.skip("needs mkdocs-material: pip install -c constraints.txt '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=120
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")]
    loaded = {
        url for page in pages for url in re.findall(r'<(?:script|img|link|iframe)\b[^>]*?(?:src|href)="(https?://[^"]+)"', page)
    }
    assert loaded == set(), "the site must load nothing from elsewhere"


@pytest.mark.unit
@pytest.mark.parametrize("page", OUTSIDE)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"""\]\(([^)\s]+)\)|src(?:set)?="([^"]+)\"""", text)
    assert [target for pair in targets for target in pair if target and not _exists(page, target)] == []


def _exists(page: str, target: str) -> bool:
    path, _, anchor = target.partition("#")
    linked = ROOT / path if path else ROOT / page
    return target.startswith("https://") or (linked.exists() and (not anchor or anchor in _anchors(linked)))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.unit
def test_documents_that_the_code_names_are_there() -> None:
    """In messages, docstrings and files of deployment."""
    deployed = (path for path in (ROOT / "deploy").rglob("*") if path.is_file() and path.suffix != ".pyc")
    files = [*SOURCES, ROOT / "Makefile", *deployed]
    named = {name for path in files for name in re.findall(r"(?<![\w/.-])docs/[\w/.-]+\.md\b", path.read_text(encoding="utf-8"))}
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.unit
def test_the_architecture_has_a_line_per_folder() -> None:
    """The one that the folder's docstring begins with."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| `(\S+)/` \| (.*) \|$", text, re.MULTILINE))
    folders = {path.parent.relative_to(ROOT).as_posix() for path in SOURCES if path.parent.parent != ROOT}
    described = folders - set(PACKAGES) - {"model_registry/migrations/versions"}
    assert lines == {folder: _first_paragraph(folder) for folder in described}


def _first_paragraph(folder: str) -> str:
    docstring = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())
