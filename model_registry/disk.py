"""Bytes on a file system: hashing, linking, syncing, permissions, and why writing fails. Knows nothing about models."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from model_registry.errors import NotWritable, OutOfDisk, RegistryError

CHUNK_BYTES = 1 << 20
READ_ONLY = 0o444
PRIVATE_FILE = 0o600
DAEMON_LOCK = "locks/jobs.lock"  # in a home: held by the daemon that runs its jobs, as long as it lives
PRIVATE_FOLDER = 0o700
_QUOTA = getattr(errno, "EDQUOT", errno.ENOSPC)
_FREE_SOME = "Free some space (`slmops list` shows the models, `slmops rm MODEL` removes one)"
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_FOLDER = frozenset({errno.ENOTDIR, errno.EEXIST, errno.ENOENT})


def sha256_of(path: Path, seen: Callable[[int], None] | None = None) -> str:
    """Hex digest of a file's content; `seen` is called with each number of bytes read."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
            if seen is not None:
                seen(len(block))
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    """The file's content survives a power cut after this."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """The folder's entries survive a power cut after this. Windows has no such call and needs none."""
    if os.name == "posix":
        sync_file(path)


def link_or_copy(source: Path, target: Path) -> None:
    """`target`, which does not exist, gets the content of `source`: a hard link, else a synced copy; no symbolic link.

    ONNX Runtime refuses external data behind symbolic links, and a hard link costs nothing.
    """
    if not source.is_symlink():
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
    sync_file(target)


def entries(folder: Path) -> list[Path]:
    """What is in the folder, sorted; nothing when it is absent or no folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def tree_bytes(path: Path) -> int:
    """Total size of the regular files under `path`, or of the file `path`; 0 when it is gone."""
    total = 0
    inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    for each in [path] if path.is_file() else inside:
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            status = each.stat(follow_symlinks=each is path)
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def remove_tree(path: Path) -> None:
    """The file or folder is gone after this, read-only files included; it may be gone already."""
    if path.is_file() or path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def make_private_folder(folder: Path) -> Path:
    """`folder`, which exists after this. It and the folders above it that are made are for this user alone.

    Raises OutOfDisk, NotWritable.
    """
    with storage_errors(folder, 1 << 12, f"making the folder {folder}"):
        for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            path.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    return folder


def who_may_enter(folder: Path) -> str | None:
    """The permissions of a folder that others than its owner may read or enter, e.g. "755"; None if there is no such permission."""
    if os.name != "posix" or not folder.is_dir():
        return None
    mode = stat.S_IMODE(folder.stat().st_mode)
    return f"{mode:o}" if mode & 0o077 else None


def open_private(path: Path, mode: str) -> IO[bytes]:
    """Like `path.open(mode)` for a binary mode; a new file is readable by this user only."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, PRIVATE_FILE))


def require_free(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Raises OutOfDisk when fewer than `needed_bytes` are free where `folder` is (it exists)."""
    if shutil.disk_usage(folder).free < needed_bytes:
        raise _out_of_disk("The disk is full", _FREE_SOME, folder, needed_bytes, purpose)


@contextlib.contextmanager
def storage_errors(folder: Path, needed_bytes: int, purpose: str) -> Iterator[None]:
    """Turns the system's error for a full disk into OutOfDisk, and for a refused write into NotWritable; other errors pass.

    purpose: what is written there, e.g. "publishing tiny:2".
    """
    try:
        yield
    except OSError as error:
        failure = storage_failure(error, folder, needed_bytes, purpose)
        if failure is None:
            raise
        raise failure from error


def storage_failure(error: OSError, folder: Path, needed_bytes: int, purpose: str) -> RegistryError | None:
    """Why something could not be written in `folder`, and what to do; None when the error is about something else."""
    if error.errno == errno.EFBIG:
        return _out_of_disk(
            "The file is larger than may be written there", "Raise the limit (`ulimit -f`)", folder, needed_bytes, purpose
        )
    if error.errno == errno.ENOSPC:
        return _out_of_disk("The disk is full", _FREE_SOME, folder, needed_bytes, purpose)
    if error.errno == _QUOTA:
        return _out_of_disk("The disk quota of this user is used up", _FREE_SOME, folder, needed_bytes, purpose)
    if error.errno in _DENIED:
        path = Path(error.filename) if isinstance(error.filename, str) else folder
        is_there = path.is_relative_to(folder) or folder.is_relative_to(path)
        return not_writable(path, purpose, error.errno) if is_there else None
    if error.errno in _NO_FOLDER and (file := _file_in_the_way(folder)) is not None:
        return NotWritable(f"{folder} cannot be a folder: {file} is a file. Move it away, or set SLMOPS_HOME to another folder.")
    return None


def not_writable(path: Path, purpose: str, number: int | None = None) -> NotWritable:
    """The error for a path that must not be written to. number: the system's, when it is known."""
    there = next((each for each in (path, *path.parents) if each.exists()), path)
    if number == errno.EROFS or (os.name == "posix" and there.exists() and os.statvfs(there).f_flag & os.ST_RDONLY):
        why = f"{there} is on a file system that is mounted read-only. Mount it for writing"
    else:
        why = f"this user has no permission to write to {there}. {_permitting(there)}"
    return NotWritable(f"{purpose[:1].upper()}{purpose[1:]} is not possible: {why}, or set SLMOPS_HOME to a folder of yours.")


def _file_in_the_way(folder: Path) -> Path | None:
    return next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)


def _permitting(path: Path) -> str:
    """What would give this user the permission to write there."""
    if os.name != "posix" or not path.exists():
        return "Give it the permission"
    owner = path.stat().st_uid
    return f"Run `chmod u+rwX {path}`" if owner == os.geteuid() else f"It belongs to the user {owner}: run slmops as that user"


def _out_of_disk(full: str, remedy: str, folder: Path, needed_bytes: int, purpose: str) -> OutOfDisk:
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    return OutOfDisk(
        f"{full}: {purpose} needs {needed_bytes / 1e6:.1f} MB in {folder}, where {free / 1e6:.1f} MB are free. "
        f"{remedy}, or set SLMOPS_HOME to a larger disk.",
        needed_bytes=needed_bytes,
    )
