"""Homes that are made once: for what is in them and for the code that makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.kept_homes import KeptHomes

pytestmark = pytest.mark.unit


def test_a_home_is_made_once_and_anew_when_its_code_changes_or_it_was_never_finished(tmp_path: Path) -> None:
    homes, code, made = KeptHomes(tmp_path / "homes"), tmp_path / "code.py", []
    (tmp_path / "homes").mkdir()
    code.write_text("1")

    def make(home: Path) -> None:
        home.mkdir()
        made.append(home)

    def killed(home: Path) -> None:
        make(home)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        homes.home("tiny", [code], killed)
    first = homes.home("tiny", [code], make)
    assert homes.home("tiny", [code], make) == first
    assert homes.home("other", [code], make) != first
    assert len(made) == 3
    code.write_text("2")
    assert homes.home("tiny", [code], make) not in made[:3]
