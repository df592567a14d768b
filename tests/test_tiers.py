"""Each test has one tier, and a unit test cannot leave its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import settings

from tests.effort import EXAMPLES, drawn
from tests.tiers import FOLDERS, ROOT, TIERS, UnitGuard, folder_tier, tier_of

pytestmark = pytest.mark.unit


def item_of(path: str, *marks: str) -> Any:
    """A test in the file `path` of tests/ with these marks."""
    made = [getattr(pytest.mark, name).mark for name in marks]
    return SimpleNamespace(
        nodeid=f"tests/{path}::test_x",
        path=ROOT / path,
        iter_markers=lambda: iter(made),
        add_marker=lambda name: made.append(getattr(pytest.mark, name).mark),
    )


def test_the_folders_with_a_tier_exist_and_their_tiers_too() -> None:
    assert [name for name in FOLDERS if not (ROOT / name).is_dir()] == []
    assert set(FOLDERS.values()) <= set(TIERS)


def test_the_innermost_folder_says_the_tier() -> None:
    assert folder_tier(Path("jobs/finetune/test_x.py")) == "train"
    assert folder_tier(Path("jobs/datasets/test_x.py")) == folder_tier(Path("jobs/test_x.py")) == "unit"


def test_a_mark_goes_before_the_folder_and_is_added_where_there_is_none() -> None:
    assert tier_of(item_of("server/test_x.py", "unit", "skipif")) == "unit"
    without = item_of("server/test_x.py", "thorough")
    assert tier_of(without) == tier_of(without) == "api"


def test_none_and_several_are_refused() -> None:
    with pytest.raises(pytest.UsageError, match=r"tests/test_x\.py has no tier"):
        tier_of(item_of("test_x.py"))
    with pytest.raises(pytest.UsageError, match="has several tiers: api, unit"):
        tier_of(item_of("server/test_x.py", "unit", "api"))


@pytest.mark.parametrize(
    ("event", "arguments"),
    [("subprocess.Popen", ("ls",)), ("os.fork", ()), ("socket.connect", (None, ("127.0.0.1", 1))), ("import", ("torch.nn",))],
)
def test_what_a_unit_test_may_not_do_fails_it(event: str, arguments: tuple[object, ...]) -> None:
    guard = UnitGuard()
    guard.audit(event, arguments)
    guard.is_on = True
    with pytest.raises(pytest.fail.Exception, match="Mark it with its tier"):
        guard.audit(event, arguments)
    guard.audit("open", ("a file",))
    guard.audit("import", ("numpy",))


def test_the_guard_watches_this_test() -> None:
    with pytest.raises(pytest.fail.Exception, match="starts a process"):
        subprocess.run([sys.executable, "-c", ""], check=True)


def test_numbers_of_cases_follow_the_effort() -> None:
    before = settings.get_current_profile_name()
    try:
        for effort, examples in EXAMPLES.items():
            settings.load_profile(effort)
            assert drawn(EXAMPLES["default"]).max_examples == examples
            assert cast(int, drawn(1).max_examples) >= 1
            assert drawn(100).derandomize == (effort != "thorough")
    finally:
        settings.load_profile(before)
