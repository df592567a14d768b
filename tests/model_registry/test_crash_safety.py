"""kill -9 at every step of a publish and of a removal, and full disks: the old state or the new, never one between."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_registry import artifacts, disk
from model_registry.artifacts import StagedVariant
from model_registry.database import Database
from model_registry.errors import OutOfDisk
from model_registry.records import Manifest, Precision
from model_registry.registry import Registry, open_registry

pytestmark = [pytest.mark.api, pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill -9")]

MANIFEST = Manifest(source="file:///x", importer="test", architecture="llama", context_length=8)


def publish(registry: Registry, text: str) -> None:
    with registry.staging() as staging:
        folder = staging / "model"
        folder.mkdir()
        (folder / "model.onnx").write_text(text)
        (folder / "tokenizer.json").write_text("shared")
        registry.publish("tiny", MANIFEST, [StagedVariant(Precision.INT8, "cpu", folder)])


def die_at(step: int) -> None:
    """This process is killed at the step-th call that changes the disk."""
    left = [step]

    def deadly(function: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("link", "rename", "replace", "chmod", "mkdir", "unlink", "rmdir", "fsync"):
        setattr(os, name, deadly(getattr(os, name)))
    Database.writing = deadly(Database.writing)


def killed_at(home: Path, step: int, act: Callable[[Registry], None]) -> bool:
    """Runs `act` on a registry in a child that dies at `step`; False when it finished before."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            registry = Registry(Database(home))
            registry.database.open()
            die_at(step)
            act(registry)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def check_whole(home: Path, states: set[tuple[int, ...]]) -> tuple[int, ...]:
    """The registry opens in one of `states`, verifies, and garbage collection leaves exactly what it refers to."""
    with open_registry(home) as registry:
        models = registry.models()
        numbers = tuple(version.number for model in models for version in model.versions)
        assert numbers in states
        for model in models:
            assert registry.verify(model.name) == ()
            assert registry.resolve(model.name).number == numbers[-1]
        registry.collect_garbage()
        versions = [version for model in models for version in model.versions]
        folders = {str(variant.folder) for version in versions for variant in version.variants}
        assert {str(path) for path in (home / "models").glob("*/*/*")} == folders
        digests = {artifact.sha256 for version in versions for artifact in version.variants[0].artifacts}
        assert {path.name for path in (home / "blobs").rglob("*") if path.is_file()} == digests
        return numbers


def test_a_publish_killed_anywhere_leaves_the_old_state_or_the_new(home: Path):
    with open_registry(home) as registry:
        publish(registry, "one")
    step = 1
    while killed_at(home, step, lambda registry: publish(registry, "two")):
        numbers = check_whole(home, {(1,), (1, 2)})
        if numbers == (1, 2):  # killed after the commit: go back, so that the next step publishes too
            with open_registry(home) as registry:
                registry.remove("tiny:2", force=True)
                registry.remove("tiny")
                publish(registry, "one")
        step += 1
    assert step > 10, "the publish must have been killed at many steps"
    assert check_whole(home, {(1, 2)}) == (1, 2)


def test_a_removal_killed_anywhere_leaves_the_old_state_or_the_new(home: Path):
    step = 1
    while True:
        with open_registry(home) as registry:
            publish(registry, "one")
        if not killed_at(home, step, lambda registry: registry.remove("tiny")):
            break
        check_whole(home, {(1,), ()})
        step += 1
    assert step > 2
    assert check_whole(home, {()}) == ()


def test_a_staging_folder_of_a_dead_process_is_garbage_and_of_a_live_one_is_not(home: Path):
    def stage_and_die(registry: Registry) -> None:
        with registry.staging() as staging:
            (staging / "big").write_bytes(b"x" * 1000)
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed_at(home, 10**6, stage_and_die)
    with open_registry(home) as registry, registry.staging() as mine:
        (mine / "big").write_bytes(b"x" * 500)
        assert registry.collect_garbage() == 1000, "its lock shows that no one works in it any more, however new it is"
        assert (mine / "big").exists()
    assert list((home / "staging").iterdir()) == []


def test_a_lock_that_is_about_to_be_taken_is_left(home: Path):
    with open_registry(home) as registry:
        lock = home / "staging" / "new.lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        registry.collect_garbage()
        assert lock.exists(), "its owner may be between opening and locking it"
        os.utime(lock, (1, 1))
        registry.collect_garbage()
        assert not lock.exists()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_leaves_nothing_and_says_how_much(home: Path, monkeypatch: pytest.MonkeyPatch, error: int):
    with open_registry(home) as registry:
        publish(registry, "one")

        def full(source: Path, target: Path) -> None:
            target.write_text("tw")
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(artifacts, "link_or_copy", full)
        with pytest.raises(OutOfDisk, match="publishing tiny:2 needs") as raised:
            publish(registry, "two")
        assert raised.value.needed_bytes == len("two") + len("shared")
        assert [version.number for version in registry.model("tiny").versions] == [1]
        assert {path.name for path in (home / "models" / "tiny").iterdir()} == {"1"}
        assert len([path for path in (home / "blobs").rglob("*") if path.is_file()]) == 2
    monkeypatch.undo()
    check_whole(home, {(1,)})


def test_without_hard_links_files_are_copied(home: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(disk.os, "link", refuse)
    with open_registry(home) as registry:
        publish(registry, "one")
        assert registry.verify("tiny") == ()
    check_whole(home, {(1,)})
