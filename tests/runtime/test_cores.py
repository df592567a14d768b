"""Cores are counted as the container and the affinity allow, not as the machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from runtime.machine.hardware import usable_cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Eight physical cores, all allowed; returns the place of the quota."""
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("runtime.machine.hardware._CGROUP_QUOTA", quota)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 16 if logical else 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    return quota


def test_hyper_threads_do_not_count(machine: Path) -> None:
    assert usable_cores() == 8


def test_the_affinity_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4}, raising=False)
    assert usable_cores() == 2


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("300000 100000\n", 3), ("350000 100000\n", 3), ("50000 100000\n", 1), ("max 100000\n", 8), ("9900000 100000", 8), ("?", 8)],
)
def test_the_quota_counts(machine: Path, quota: str, cores: int) -> None:
    machine.write_text(quota)
    assert usable_cores() == cores


def test_an_unknown_number_of_cores_is_one(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
