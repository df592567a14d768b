"""`slmops backup` and `restore` on real homes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from model_registry.disk import DAEMON_LOCK
from model_registry.records import ModelVersion

if TYPE_CHECKING:
    from tests.cli.conftest import Slmops

pytestmark = pytest.mark.api  # removing a model and creating a key look for a daemon
Publish = Callable[..., ModelVersion]


@pytest.fixture
def archive(slmops: Slmops, publish: Publish, tmp_path: Path) -> Path:
    """A backup of a home with `tiny:1` and a key."""
    publish("tiny")
    assert slmops("keys", "create", "--name", "app", "--scope", "inference").code == 0
    target = tmp_path / "home.tar"
    made = slmops("backup", str(target), "--json")
    assert (made.code, json.loads(made.out)["models"]) == (0, {"tiny:1": 7})
    return target


def test_what_was_removed_comes_back(slmops: Slmops, archive: Path) -> None:
    assert slmops("rm", "tiny").code == 0
    restored = json.loads(slmops("restore", str(archive), "--json").out)
    assert (restored["versions"], restored["keys"], restored["replaced"]) == ({"tiny:1": "tiny:1"}, 0, None)
    assert slmops("verify", "tiny").code == 0
    assert json.loads(slmops("restore", str(archive), "tiny", "--json").out)["present"] == ["tiny:1"]


def test_another_home_gets_everything(slmops: Slmops, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_HOME", str(tmp_path / "another"))
    restored = json.loads(slmops("restore", str(archive), "--json").out)
    assert (restored["versions"], restored["keys"]) == ({"tiny:1": "tiny:1"}, 1)


def test_a_replaced_home_is_kept(slmops: Slmops, archive: Path, publish: Publish, home: Path) -> None:
    publish("other")
    restored = json.loads(slmops("restore", str(archive), "--replace", "--json").out)
    assert [each["name"] for each in json.loads(slmops("list", "--json").out)] == ["tiny"]
    assert (Path(restored["replaced"]) / "models" / "other").is_dir()
    with FileLock(home / DAEMON_LOCK):
        assert slmops("restore", str(archive), "--replace").code == 1


def test_a_replacement_by_something_else_changes_nothing(slmops: Slmops, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:3000])
    assert slmops("restore", str(archive), "--replace").code == 1
    assert slmops("verify", "tiny").code == 0


def test_the_list_of_a_backup_changes_nothing(
    slmops: Slmops, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLMOPS_HOME", str(tmp_path / "another"))
    assert json.loads(slmops("restore", "--list", "--json", str(archive)).out)["models"] == {"tiny:1": 7}
    assert "tiny:1" in slmops("restore", "--list", str(archive)).out
    assert not (tmp_path / "another").exists()


def test_a_folder_gets_a_file_with_the_time_in_its_name(slmops: Slmops, publish: Publish, tmp_path: Path) -> None:
    publish("tiny")
    folder = tmp_path / "backups"
    folder.mkdir()
    assert slmops("backup", str(folder)).code == 0
    assert len(list(folder.glob("slmops-*Z.tar"))) == 1


def test_what_cannot_work_is_said(slmops: Slmops, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slmops("backup", str(archive)).code == 1  # is there already
    assert slmops("backup", str(tmp_path / "no folder" / "file.tar")).code == 1
    assert slmops("restore", str(tmp_path / "absent.tar")).code == 2
    assert slmops("restore", str(archive), "absent").code == 1
    assert slmops("restore", str(archive), "tiny", "--replace").code == 2
    monkeypatch.setenv("SLMOPS_HOME", str(tmp_path / "another"))
    assert slmops("backup", str(tmp_path / "nothing.tar")).code == 1
    assert not (tmp_path / "nothing.tar").exists()
