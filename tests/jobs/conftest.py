"""What tests of jobs share. Jobs belong into processes of their own: what they set for the rest of theirs ends with the module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.task import TaskContext
from tests.doubles.task_runs import environment_kept
from tests.doubles.tiny_checkpoint import task_context, write_checkpoint


@pytest.fixture(scope="module", autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    with environment_kept():
        yield


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny checkpoint. Read-only."""
    return write_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def context(tmp_path: Path) -> Iterator[TaskContext]:
    """Of a job in a home of its own."""
    with task_context(tmp_path / "home") as made:
        yield made
