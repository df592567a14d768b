"""Plugin of pytest: counts the requests of each kind that the contract's tests sent, from all processes, and reports them at the
end.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

_COUNTS = pytest.StashKey[Counter[str]]()
_SENT = "contract_cases"  # from a worker of pytest-xdist to the process that reports


@pytest.fixture(scope="session")
def cases(pytestconfig: pytest.Config) -> Counter[str]:
    """How many requests of each kind were sent."""
    return _counts(pytestconfig)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker of pytest-xdist."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[_SENT] = dict(_counts(session.config))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """In the reporting process. A crashed worker has reported nothing."""
    _counts(node.config).update(getattr(node, "workeroutput", {}).get(_SENT, {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for kind, count in sorted(_counts(config).items()):
        terminalreporter.write_line(f"contract: {count:6} {kind}")


def _counts(config: pytest.Config) -> Counter[str]:
    return config.stash.setdefault(_COUNTS, Counter())
