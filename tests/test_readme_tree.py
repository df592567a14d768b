"""README's tree is the disk: every file of the packages stands in it with a clause, and nothing else does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BY_FILE = ("server", "jobs", "runtime", "model_registry", "deploy", "docs")
BY_FOLDER = "tests"
BUILT = {"build", "dist"}  # by tools; never in the repository
LEAF_FOLDERS = {"model_registry/migrations/versions/"}  # one line for all that is inside


@dataclass(frozen=True)
class Entry:
    """One line: a path from the root, folders with a slash at the end, and what it says of it."""

    path: str
    clause: str


def parse_tree(readme: str) -> list[Entry]:
    """The fenced block under `## Tree`: two spaces of indentation per folder, two spaces before the clause."""
    block = re.search(r"^## Tree\n+```[a-z]*\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert block, "README.md has no fenced block under `## Tree`"
    entries: list[Entry] = []
    folders: list[str] = []
    for line in filter(str.strip, block[1].splitlines()):
        name, _, clause = line.strip().partition("  ")
        spaces = len(line) - len(line.lstrip())
        assert spaces % 2 == 0, f"indented by {spaces} spaces: {line!r}"
        assert spaces // 2 <= len(folders), f"nothing above it is its folder: {line!r}"
        folders = folders[: spaces // 2]
        entries.append(Entry("".join(folders) + name, clause.strip()))
        if name.endswith("/"):
            folders.append(name)
    return entries


def on_disk(paths: Iterable[Path]) -> set[str]:
    """The files among these that a reader looks for, and the folders that hold them."""
    found = set()
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        leaf = next((folder for folder in LEAF_FOLDERS if name.startswith(folder)), None)
        if "__pycache__" in path.parts or not path.is_file() or (path.name == "__init__.py" and leaf is None):
            continue
        found.add(leaf or name)
        found |= {f"{folder}/" for folder in Path(name).parents if folder.as_posix() != "."}
    return found


@pytest.fixture(scope="module")
def tree() -> list[Entry]:
    return parse_tree((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", BY_FILE)
def test_every_file_stands_in_the_tree(tree: list[Entry], folder: str) -> None:
    listed = {entry.path for entry in tree if entry.path.startswith(f"{folder}/")}
    assert listed == on_disk((ROOT / folder).rglob("*"))


def test_tests_stand_by_folder(tree: list[Entry]) -> None:
    listed = {entry.path for entry in tree if entry.path.startswith(f"{BY_FOLDER}/")}
    assert listed == {path for path in on_disk((ROOT / BY_FOLDER).rglob("*.py")) if path.endswith("/")}


def test_the_top_level_is_whole(tree: list[Entry]) -> None:
    listed = {entry.path.rstrip("/") for entry in tree if "/" not in entry.path.rstrip("/")}
    there = {path.name for path in ROOT.iterdir() if path.name not in BUILT and path.suffix != ".egg-info"}
    assert {name for name in there if not name.startswith(".")} <= listed
    assert listed <= there


def test_every_line_has_a_clause_and_stands_once(tree: list[Entry]) -> None:
    assert [entry.path for entry in tree if not entry.clause] == []
    paths = [entry.path for entry in tree]
    assert len(paths) == len(set(paths))


def test_folders_end_in_a_slash(tree: list[Entry]) -> None:
    assert [entry.path for entry in tree if (ROOT / entry.path).is_dir() != entry.path.endswith("/")] == []


def test_the_parser_reads_what_the_tree_is_written_in() -> None:
    """Else the tests above would prove nothing."""
    readme = "# x\n\n## Tree\n\n```\na.txt  first\nb/  a folder\n  c/  inner\n    d.py  deep\n  e.py  shallow\nf.py\n```\n"
    assert parse_tree(readme) == [
        Entry("a.txt", "first"),
        Entry("b/", "a folder"),
        Entry("b/c/", "inner"),
        Entry("b/c/d.py", "deep"),
        Entry("b/e.py", "shallow"),
        Entry("f.py", ""),
    ]
    with pytest.raises(AssertionError, match="nothing above it"):
        parse_tree("## Tree\n```\na  x\n    b  y\n```\n")
    with pytest.raises(AssertionError, match="no fenced block"):
        parse_tree("## Other\n")
