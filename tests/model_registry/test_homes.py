"""The permissions of a home; and homes that cannot be written to or whose disk is full are still readable, with accurate errors."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from model_registry.artifacts import StagedVariant
from model_registry.database import Database
from model_registry.disk import make_private_folder, open_private, storage_errors, who_may_enter
from model_registry.errors import NotWritable, OutOfDisk, RegistryError
from model_registry.records import Manifest, Precision
from model_registry.registry import Registry, open_registry
from model_registry.uploads import FileStore
from tests.doubles import unprivileged

posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
_READ = """
import sys
from pathlib import Path
from model_registry.database import Database
from model_registry.errors import RegistryError
from model_registry.registry import Registry
from model_registry.uploads import FileStore
{limits}
home = Path(sys.argv[1])
with Database(home) as database:
    registry = Registry(database)
    print(registry.resolve("tiny").label, "read only:", registry.why_read_only)
    try:
        registry.set_alias("tiny", "mine", 1)
    except RegistryError as error:
        print(type(error).__name__)
    print(FileStore(database).find())
"""
_NO_GROWTH = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Holds the model `tiny`."""
    home = tmp_path / "home"
    with open_registry(home) as registry, registry.staging() as folder:
        (folder / "weights").write_bytes(b"some")
        variant = StagedVariant(Precision.FP32, "cpu", folder)
        registry.publish("tiny", Manifest("test", "none", "test", 16), [variant])
    return home


@posix
def test_a_new_home_is_for_its_owner_alone(home: Path) -> None:
    with (home / "../content").resolve().open("w+b") as content, Database(home) as database:
        FileStore(database).add(content, "data.jsonl", "fine-tune")
    private = [home, home / "registry.db", home / "locks/registry.lock", *(home / "files").rglob("*"), home / "files"]
    assert [oct(stat.S_IMODE(path.stat().st_mode) & 0o077) for path in private] == ["0o0"] * len(private)
    assert who_may_enter(home) is None
    home.chmod(0o755)
    assert who_may_enter(home) == "755"


@posix
def test_the_files_beside_an_open_database_are_private_too(home: Path) -> None:
    with open_registry(home) as registry:
        registry.set_alias("tiny", "mine", 1)
        beside = sorted(home.glob("registry.db-*"))
        assert len(beside) == 2
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in beside)


@posix
def test_folders_above_are_private_where_they_are_made_and_left_where_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    made = make_private_folder(tmp_path / "a" / "b")
    open_private(made / "file", "wb").close()
    paths = (tmp_path, made.parent, made, made / "file")
    assert [f"{stat.S_IMODE(path.stat().st_mode):o}" for path in paths] == ["755", "700", "700", "600"]


@pytest.mark.api
@pytest.mark.skipif(not unprivileged.permissions_hold(), reason="nobody is refused anything here")
def test_a_home_that_cannot_be_written_to_is_read_and_says_so(home: Path) -> None:
    for folder in (home, home / "locks"):
        folder.chmod(0o500)
    (home / "locks/registry.lock").chmod(0o400)
    try:
        ended = unprivileged.run(_READ.format(limits=""), str(home))
    finally:
        home.chmod(0o700)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("tiny:1 read only: Writing to the registry is not possible: this user has no permission")
    assert lines[1:] == ["NotWritable", "[]"]


@pytest.mark.api
@pytest.mark.skipif(not unprivileged.permissions_hold(), reason="nobody is refused anything here")
@pytest.mark.parametrize("command", ["list", "serve --port 0"])
def test_a_home_that_cannot_be_made_is_one_sentence(tmp_path: Path, command: str) -> None:
    tmp_path.chmod(0o500)
    code = "import os, sys; os.environ['SLMOPS_HOME'] = sys.argv.pop(); from server.cli import main; main()"
    try:
        ended = unprivileged.run(code, *command.split(), str(tmp_path / "home"))
    finally:
        tmp_path.chmod(0o700)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "no permission to write" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.mark.api
@posix
def test_a_full_disk_keeps_nobody_from_reading(home: Path) -> None:
    """No file may grow in that process, which is what a full disk is to SQLite."""
    ended = unprivileged.run(_READ.format(limits=_NO_GROWTH), str(home))
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("tiny:1 read only: The disk is full")
    assert lines[1:] == ["OutOfDisk", "[]"]


def test_it_is_written_to_again_as_soon_as_it_can_be(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr("model_registry.database.os.access", lambda path, mode: False)
        database = Database(home)
        registry = Registry(database)
        with pytest.raises(NotWritable):
            registry.set_alias("tiny", "mine", 1)
        assert registry.resolve("tiny").label == "tiny:1"
    with database, open_registry(home) as other:
        other.set_alias("tiny", "theirs", 1)
        registry.set_alias("tiny", "mine", 1)
        assert registry.why_read_only is None
        assert {alias.name for alias in registry.model("tiny").aliases} == {"live", "mine", "theirs"}


@pytest.mark.parametrize(
    ("number", "kind", "expected_text"),
    [
        (errno.ENOSPC, OutOfDisk, "The disk is full: keeping it needs"),
        (errno.EDQUOT, OutOfDisk, "The disk quota of this user is used up"),
        (errno.EFBIG, OutOfDisk, "The file is larger than may be written there"),
        (errno.EROFS, NotWritable, "mounted read-only. Mount it for writing"),
        (errno.EACCES, NotWritable, "no permission to write to"),
        (errno.EPERM, NotWritable, "no permission to write to"),
    ],
)
def test_why_something_cannot_be_written_is_reported(
    tmp_path: Path, number: int, kind: type[RegistryError], expected_text: str
) -> None:
    with pytest.raises(kind, match=expected_text), storage_errors(tmp_path, 5, "keeping it"):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))


def test_what_lies_elsewhere_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), storage_errors(tmp_path / "home", 5, "importing it"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "theirs"))


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable, match="file is a file"):
        make_private_folder(tmp_path / "file" / "home")


def test_an_upload_into_a_folder_without_permission_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("model_registry.uploads.open_private", refuse)
    (tmp_path / "content").touch()
    with pytest.raises(NotWritable, match="Keeping an uploaded file"), (tmp_path / "content").open("rb") as content:
        FileStore(Database(tmp_path / "home")).add(content, "a", "fine-tune")
