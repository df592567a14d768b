"""Homes with models under pytest's cache: each is made once for the code that makes it, by whatever process needs it first."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock

import model_registry
from model_registry.pull import pull
from model_registry.records import Precision
from model_registry.registry import open_registry
from tests.doubles import tiny_gguf
from tests.doubles.tiny_gguf import Tiny, write_gguf

PACKAGE = Path(model_registry.__file__).parent
UNUSED_S = 24 * 3600  # homes of earlier code that nobody used for so long are removed
_MADE = "used"  # a file whose time is that of the last use


class KeptHomes:
    """folder: of all homes, shared by the processes of pytest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def home(self, what: str, code: Iterable[Path], make: Callable[[Path], None]) -> Path:
        """Read only: tests share it. It is made anew when `what`, any words for what is in it, or the files `code` change."""
        home = self._folder / _what_it_depends_on(what, code)
        with FileLock(home.with_suffix(".lock")):
            self._remove_unused(keep=home)
            if not (home / _MADE).exists():
                shutil.rmtree(home, ignore_errors=True)
                make(home)
            (home / _MADE).touch()
        return home

    def tiny(self, target: Path, **models: Tiny) -> Path:
        """`target`, a new home of the test's own, with these models in float32."""

        def make(home: Path) -> None:
            with open_registry(home) as registry:
                for name, tiny in models.items():
                    pull(registry, str(write_gguf(home / f"{name}.gguf", tiny)), name=name, precision=Precision.FP32)

        copies: dict[int, str] = {}

        def copied(source: str, destination: str) -> None:
            """What is one file there is one file here."""
            if (first := copies.setdefault(Path(source).stat().st_ino, destination)) == destination:
                shutil.copy2(source, destination)
            else:
                os.link(first, destination)

        code = [*sorted(PACKAGE.rglob("*.py")), Path(tiny_gguf.__file__)]
        shutil.copytree(self.home(repr(models), code, make), target, copy_function=copied)
        return target

    def _remove_unused(self, *, keep: Path) -> None:
        for home in self._folder.iterdir():
            used = home / _MADE
            if home.is_dir() and home != keep and used.exists() and time.time() - used.stat().st_mtime > UNUSED_S:
                shutil.rmtree(home, ignore_errors=True)


def _what_it_depends_on(what: str, code: Iterable[Path]) -> str:
    """The name of its folder."""
    digest = hashlib.sha256(what.encode())
    for path in code:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
