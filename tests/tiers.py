"""Plugin of pytest: the tiers. Each test has exactly one, by its own mark or its folder, and `unit` is held to its word.

Tests of the heaviest tier run first, so that at the end no process waits for another one's long file.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

TIERS = {  # the heaviest first
    "train": "PyTorch, and what trains, converts or searches with it",
    "model": "a real model, or a library that runs models",
    "api": "the real app with the fake engine, or real processes and connections",
    "unit": "no process, no connection, no library that runs models; milliseconds",
}
FOLDERS = {  # of tests without a mark; the innermost folder that is listed counts
    "cli": "unit",
    "clients": "model",
    "contract": "api",
    "deploy": "api",
    "faults": "api",
    "jobs": "unit",
    "jobs/convert": "train",
    "jobs/distil": "train",
    "jobs/evaluate": "model",
    "jobs/finetune": "train",
    "jobs/foundry_export": "model",
    "jobs/olive": "train",
    "jobs/quantize": "model",
    "jobs/search": "train",
    "model_registry": "unit",
    "runtime": "unit",
    "server": "api",
}
STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"})
ENGINES = frozenset({"foundry_local_sdk", "olive", "onnxruntime", "onnxruntime_genai", "openvino", "torch", "transformers"})
ROOT = Path(__file__).parent


class UnitGuard:
    """Fails the unit test that starts a process, connects to anything or imports a library that runs models."""

    def __init__(self) -> None:
        self.is_on = False

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A hook of `sys.addaudithook`. What it raises, the call raises."""
        if self.is_on and (found := self._broken(event, arguments)):
            pytest.fail(f"A unit test {found}. Mark it with its tier (tests/tiers.py), or spare it that.")

    def _broken(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event in STARTS:
            return f"starts a process ({event})"
        if event == "socket.connect":
            return f"connects to {arguments[1]}"
        if event == "import" and arguments[0].partition(".")[0] in ENGINES:
            return f"imports {arguments[0]}"
        return None


GUARD = UnitGuard()


def pytest_configure(config: pytest.Config) -> None:
    for name, meaning in TIERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    sys.addaudithook(GUARD.audit)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m unit`, files that hold no unit test are not even imported."""
    if config.option.markexpr != "unit" or not collection_path.name.startswith("test_"):
        return None
    path = collection_path.relative_to(ROOT)
    may_hold = folder_tier(path) == "unit" if path.parent != Path() else False
    return None if may_hold or "pytest.mark.unit" in collection_path.read_text(encoding="utf-8") else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before pytest selects by marks."""
    order = {name: number for number, name in enumerate(TIERS)}
    heaviest: dict[Path, int] = {}
    for item in items:
        tier = tier_of(item)
        heaviest[item.path] = min(order[tier], heaviest.get(item.path, len(order)))
    items.sort(key=lambda item: heaviest[item.path])


def tier_of(item: pytest.Item) -> str:
    """Of a test, which it marks with its folder's where it has none. Raises UsageError for several."""
    marked = {mark.name for mark in item.iter_markers() if mark.name in TIERS}
    if len(marked) > 1:
        raise pytest.UsageError(f"{item.nodeid} has several tiers: {', '.join(sorted(marked))}")
    if not marked:
        marked = {folder_tier(item.path.relative_to(ROOT))}
        item.add_marker(next(iter(marked)))
    return marked.pop()


def folder_tier(path: Path) -> str:
    """path: of a file, from the folder of all tests. Raises UsageError where no folder of it is listed."""
    for folder in path.parents:
        if folder.as_posix() in FOLDERS:
            return FOLDERS[folder.as_posix()]
    raise pytest.UsageError(f"tests/{path} has no tier: mark its tests, or list its folder in tests/tiers.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    GUARD.is_on = item.get_closest_marker("unit") is not None
    try:
        return (yield)
    finally:
        GUARD.is_on = False
