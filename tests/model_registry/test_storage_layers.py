"""One way to the database: a few files know which one it is, entry points build it, and everything else is handed a store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("server", "jobs", "runtime", "model_registry")
ADAPTER = {f"model_registry/{name}.py" for name in ("database", "sqlite", "migration")}
FOREIGN = {"jobs/tasks/search": "Optuna keeps a study in a file of its own"}
BUILDERS = ("server/app.py", "server/cli/", "jobs/child.py", "model_registry/registry.py")
_DIALECT = re.compile(
    r"sqlite|pragma|begin\s+immediate|vacuum|insert\s+or\s|exec_driver_sql|sqlalchemy\.dialects|registry\.db|registry\.lock", re.I
)
_BUILDS = re.compile(r"(?<!class )\b(?:Database|open_registry|create_engine)\(")


def sources() -> list[tuple[str, str]]:
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def lines_with(pattern: re.Pattern[str], path: str, source: str) -> list[str]:
    return [f"{path}:{number}: {line.strip()}" for number, line in enumerate(source.splitlines(), 1) if pattern.search(line)]


def test_only_the_adapter_knows_which_database_it_is() -> None:
    others = [each for each in sources() if each[0] not in ADAPTER and not each[0].startswith(tuple(FOREIGN))]
    assert len(others) > 100
    assert [line for path, source in others for line in lines_with(_DIALECT, path, source)] == []


def test_only_entry_points_build_a_database() -> None:
    others = [each for each in sources() if each[0] not in ADAPTER and not each[0].startswith(BUILDERS)]
    assert [line for path, source in others for line in lines_with(_BUILDS, path, source)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import sqlite3",
        "from sqlalchemy.dialects.sqlite import insert",
        'connection.exec_driver_sql("SELECT 1")',
        'text("INSERT OR REPLACE INTO jobs")',
        'home / "registry.db"',
        "with Database(home) as database:",
        "with open_registry(home) as registry:",
    ],
)
def test_the_search_sees_what_it_is_for(line: str) -> None:
    """Else the tests above would pass on anything."""
    assert lines_with(_DIALECT, "x.py", line) + lines_with(_BUILDS, "x.py", line)


@pytest.mark.parametrize("line", ["class Database:", "def writing(database: Database) -> None:", "store = JobStore(database)"])
def test_the_search_leaves_the_rest_alone(line: str) -> None:
    assert lines_with(_DIALECT, "x.py", line) + lines_with(_BUILDS, "x.py", line) == []
