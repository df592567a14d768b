"""Zip and tar archives, distrusted: a name that leaves the folder, a link or a special file refuses the whole archive, and so
does one that holds far more than its own size, or too many files.

Knows nothing about what is inside.
"""

from __future__ import annotations

import contextlib
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO

from model_registry.bounded_stream import Bounded, decompressed
from model_registry.disk import CHUNK_BYTES, require_free, storage_errors
from model_registry.errors import CorruptModel, InvalidReference
from model_registry.paths import check_distinct, inside, safe_name
from model_registry.progress import UNPACKING, Progress

MAX_ENTRIES = 10_000
MAX_RATIO = 100  # weights compress to a half at best
LEAST_BYTES = 64 << 20  # that any archive may unpack to, however small it is
_MAX_DIRECTORY_BYTES = 8 << 20  # of a zip's table of contents
_OWNER = "The archive"
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, LZMAError, NotImplementedError, RuntimeError, struct.error)


def is_archive(path: Path) -> bool:
    """Whether the file is a zip or a (compressed) tar, by its content."""
    if not path.is_file():
        return False
    if zipfile.is_zipfile(path):
        return True
    try:
        with _tar(path) as tarred:
            return tarred is not None
    except (*_DAMAGED, OSError, CorruptModel):
        return False


def extract_all(archive: Path, destination: Path, progress: Progress) -> None:
    """Extracts everything to `destination`. Raises CorruptModel, OutOfDisk; files may then be left there."""
    progress.stage(f"{UNPACKING} {archive.name}")
    with _reading(archive):
        if zipfile.is_zipfile(archive):
            with _zip(archive) as zipped:
                _extract_zip(zipped, destination, progress)
        else:
            _check_tar(archive, destination)
            with _tar(archive) as tarred:
                _extract_tar(tarred, destination, progress)


def extract_member(archive: Path, name: str, target: Path, progress: Progress) -> None:
    """Extracts one file of a zip to `target`. Raises InvalidReference (no such file), CorruptModel."""
    progress.stage(f"{UNPACKING} {PurePosixPath(name).name}")
    with _reading(archive), _zip(archive) as zipped:
        try:
            member = zipped.getinfo(name)
        except KeyError as error:
            others = [entry for entry in zipped.namelist() if entry.endswith((".gguf", ".onnx", ".zip"))]
            hint = f" It has {', '.join(others[:5])}." if others else ""
            raise InvalidReference(f"{archive.name} has no file {name!r}.{hint}") from error
        require_free(target.parent, member.file_size, f"unpacking {name}")
        with zipped.open(member) as source:
            _copy(source, target, member.file_size, progress)


@contextlib.contextmanager
def _zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Opened, and every name and size in it checked. Raises CorruptModel."""
    _check_directory(archive)
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        for member in members:
            _check_zip_member(archive, member)
        files = [member for member in members if not member.is_dir()]
        _check_sizes([member.file_size for member in files], len(members), archive)
        check_distinct((PurePosixPath(member.filename) for member in files), _OWNER)
        yield zipped


def _check_directory(archive: Path) -> None:
    """A zip's table of contents is read as a whole, so its size is looked at first. Source: APPNOTE.TXT 4.3.14 to 4.3.16."""
    with archive.open("rb") as file:
        start = max(0, archive.stat().st_size - (1 << 16) - 22 - 76)
        file.seek(start)
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise zipfile.BadZipFile("it has no table of contents")
    wide = end - 76  # where a zip of the 64-bit kind has a record of its own, and then its locator
    is_wide = wide >= 0 and tail[wide : wide + 4] == b"PK\x06\x06" and tail[end - 20 : end - 16] == b"PK\x06\x07"
    (size,) = struct.unpack_from("<Q", tail, wide + 40) if is_wide else struct.unpack_from("<I", tail, end + 12)
    if size > _MAX_DIRECTORY_BYTES:
        raise CorruptModel(f"{archive.name} has a table of contents of {size / 1e6:.0f} MB. Do not trust this archive.")


def _extract_zip(zipped: zipfile.ZipFile, destination: Path, progress: Progress) -> None:
    members = [member for member in zipped.infolist() if not member.is_dir()]
    require_free(destination, sum(member.file_size for member in members), "unpacking the archive")
    for member in members:
        target = inside(destination, member.filename, _OWNER)
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipped.open(member) as source:
            _copy(source, target, member.file_size, progress)


@contextlib.contextmanager
def _tar(archive: Path) -> Iterator[tarfile.TarFile]:
    """Read through a stream that ends at the most that the archive may hold, and in pieces of bounded size."""
    most = _most_bytes(archive) + MAX_ENTRIES * 2 * tarfile.BLOCKSIZE
    with decompressed(archive) as stream, tarfile.open(fileobj=Bounded(stream, most), mode="r:") as tarred:
        yield tarred


def _check_tar(archive: Path, destination: Path) -> None:
    """Every name and size, before anything is unpacked. Raises CorruptModel, OutOfDisk."""
    sizes: list[int] = []
    names: list[PurePosixPath] = []
    with _tar(archive) as tarred:
        for number, member in enumerate(tarred, 1):
            if not (member.isfile() or member.isdir()) or member.issparse():
                raise CorruptModel(f"The archive holds {member.name!r}, a link or special file. Pack plain files only.")
            if PurePosixPath(member.name).parts:
                safe_name(member.name, _OWNER)
            if member.isfile():
                names.append(PurePosixPath(member.name))
                sizes.append(member.size)
            _check_sizes(sizes, number, archive)
    check_distinct(names, _OWNER)
    require_free(destination, sum(sizes), "unpacking the archive")


def _extract_tar(tarred: tarfile.TarFile, destination: Path, progress: Progress) -> None:
    for member in tarred:
        if not member.isfile():
            continue
        target = inside(destination, member.name, _OWNER)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = tarred.extractfile(member)
        assert source is not None  # it is a plain file
        _copy(source, target, member.size, progress)


def _check_sizes(sizes: Sequence[int], num_entries: int, archive: Path) -> None:
    if num_entries > MAX_ENTRIES:
        raise CorruptModel(f"{archive.name} holds more than {MAX_ENTRIES} entries. Pack the model's own files only.")
    most, total = _most_bytes(archive), sum(sizes)
    if total > most:
        raise CorruptModel(
            f"{archive.name} has {archive.stat().st_size / 1e6:.1f} MB and would unpack to {total / 1e6:.0f} MB or more, over "
            f"{most / 1e6:.0f} MB. No model packs so well: do not trust this archive, or unpack it yourself."
        )


def _most_bytes(archive: Path) -> int:
    return max(LEAST_BYTES, MAX_RATIO * archive.stat().st_size)


def _check_zip_member(archive: Path, member: zipfile.ZipInfo) -> None:
    safe_name(member.filename, _OWNER)
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise CorruptModel(f"{archive.name} holds {member.filename!r}, a link or special file. Pack plain files only.")


def _copy(source: IO[bytes], target: Path, size: int, progress: Progress) -> None:
    """Exactly `size` bytes. Raises CorruptModel when the archive holds fewer or more."""
    done = 0
    with storage_errors(target.parent, size, f"unpacking {target.name}"), target.open("xb") as file:
        while block := source.read(CHUNK_BYTES):
            done += len(block)
            if done > size:
                break
            file.write(block)
            progress.update(done, size)
    if done != size:
        raise EOFError(f"{target.name} does not have the size that the archive declares")


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise CorruptModel(f"{archive.name} cannot be unpacked ({error}): it is damaged or encrypted. Fetch it again.") from error
