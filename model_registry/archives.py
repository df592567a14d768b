"""Zip and tar archives, distrusted: a name that leaves the folder, a link or a special file refuses the whole archive.

Knows nothing about what is inside.
"""

from __future__ import annotations

import contextlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from model_registry.disk import CHUNK_BYTES, require_free, storage_errors
from model_registry.errors import CorruptModel, InvalidReference
from model_registry.progress import Progress

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError, RuntimeError)


def is_archive(path: Path) -> bool:
    """Whether the file is a zip or a (compressed) tar, by its content."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def extract_all(archive: Path, destination: Path, progress: Progress) -> None:
    """Everything lies in `destination` after this. Raises CorruptModel, OutOfDisk; files may then be left there."""
    progress.stage(f"unpacking {archive.name}")
    with _reading(archive):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _extract_zip(zipped, destination, progress)
        else:
            with tarfile.open(archive) as tarred:
                _extract_tar(tarred, destination, progress)


def extract_member(archive: Path, name: str, target: Path, progress: Progress) -> None:
    """One file of a zip lies at `target` after this. Raises InvalidReference (no such file), CorruptModel."""
    progress.stage(f"unpacking {PurePosixPath(name).name}")
    with _reading(archive), zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            _check_zip_member(archive, member)
        try:
            member = zipped.getinfo(name)
        except KeyError as error:
            others = [entry for entry in zipped.namelist() if entry.endswith((".gguf", ".onnx", ".zip"))]
            hint = f" It has {', '.join(others[:5])}." if others else ""
            raise InvalidReference(f"{archive.name} has no file {name!r}.{hint}") from error
        require_free(target.parent, member.file_size, f"unpacking {name}")
        with zipped.open(member) as source:
            _copy(source, target, member.file_size, progress)


def _extract_zip(zipped: zipfile.ZipFile, destination: Path, progress: Progress) -> None:
    members = [member for member in zipped.infolist() if not member.is_dir()]
    for member in zipped.infolist():
        _check_zip_member(destination, member)
    require_free(destination, sum(member.file_size for member in members), "unpacking the archive")
    for member in members:
        target = destination / PurePosixPath(member.filename)
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipped.open(member) as source:
            _copy(source, target, member.file_size, progress)


def _extract_tar(tarred: tarfile.TarFile, destination: Path, progress: Progress) -> None:
    members = tarred.getmembers()
    for member in members:
        _check_name(member.name)
        if not (member.isfile() or member.isdir()):
            raise CorruptModel(f"The archive holds {member.name!r}, a link or special file. Pack plain files only.")
    require_free(destination, sum(member.size for member in members), "unpacking the archive")
    for member in members:
        with storage_errors(destination, member.size, f"unpacking {member.name}"):
            tarred.extract(member, destination, filter="data")
        progress.update(member.offset_data + member.size, None)


def _check_zip_member(archive: Path, member: zipfile.ZipInfo) -> None:
    _check_name(member.filename)
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise CorruptModel(f"{archive.name} holds {member.filename!r}, a link or special file. Pack plain files only.")


def _check_name(name: str) -> None:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if ".." in posix.parts or ".." in windows.parts or posix.is_absolute() or windows.drive or windows.root:
        raise CorruptModel(f"The archive holds the name {name!r}, which leaves its folder. Do not trust this archive.")


def _copy(source: IO[bytes], target: Path, size: int, progress: Progress) -> None:
    done = 0
    with storage_errors(target.parent, size, f"unpacking {target.name}"), target.open("xb") as file:
        while block := source.read(CHUNK_BYTES):
            file.write(block)
            done += len(block)
            progress.update(done, size)


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise CorruptModel(f"{archive.name} cannot be unpacked ({error}): it is damaged or encrypted. Fetch it again.") from error
