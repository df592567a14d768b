"""Runs a program that file permissions hold for, also where the tests run as root."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_DROP = 24  # PR_CAPBSET_DROP of <linux/prctl.h>
_OVERRIDES = (1, 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root reads and writes whatever it likes


def permissions_hold() -> bool:
    """Whether such a program can be started here."""
    return os.name == "posix" and (os.geteuid() != 0 or sys.platform == "linux")


def run(code: str, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Python code with these arguments. A root that is started anew without these capabilities has none of them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLMOPS_")}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**environment, "PYTHONPATH": str(ROOT)},
        preexec_fn=_drop_overrides,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _drop_overrides() -> None:
    if sys.platform == "linux" and os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in _OVERRIDES:
            libc.prctl(_DROP, capability, 0, 0, 0)
