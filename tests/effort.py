"""Plugin of pytest: how hard tests look. `--effort fast` draws few cases; `thorough` draws many, anew each time.

A test that is marked `thorough` runs with that effort only: it has a cheaper sibling, which covers the same code.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = {"fast": 15, "default": 60, "thorough": 600}  # drawn where a test names no number

for _name, _examples in EXAMPLES.items():
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        derandomize=_name != "thorough",
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],  # slow machines fail nothing
    )
settings.load_profile("default")


def drawn(max_examples: int) -> settings:
    """As many by default; fewer or more in proportion with another effort."""
    return settings(max_examples=max(1, max_examples * settings.default.max_examples // EXAMPLES["default"]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--effort", choices=EXAMPLES, default="default", help="how hard tests look (default: %(default)s)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "thorough: only with `--effort thorough`")
    settings.load_profile(config.getoption("effort"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("effort") == "thorough":
        return
    left_out = [item for item in items if item.get_closest_marker("thorough")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
