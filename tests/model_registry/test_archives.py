"""Zip and tar archives: what is sound unpacks, what reaches outside its folder is refused."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from model_registry.archives import extract_all, extract_member, is_archive
from model_registry.errors import CorruptModel, InvalidReference, OutOfDisk
from model_registry.progress import SilentProgress

BAD_NAMES = ["../evil", "a/../../evil", "/etc/evil", "a/../b", "..\\evil", "C:\\evil", "\\evil"]


def write_zip(path: Path, files: dict[str, bytes], link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, body in files.items():
            zipped.writestr(name, body)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            zipped.writestr(entry, "/etc/passwd")
    return path


def write_tar(path: Path, files: dict[str, bytes], special: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tarred:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tarred.addfile(entry, io.BytesIO(body))
        if special:
            tarred.addfile(special)
    return path


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_sound_archive_unpacks(tmp_path, write):
    archive = write(tmp_path / "x.bin", {"a/b.txt": b"hello", "c.txt": b"x" * 100})
    assert is_archive(archive)
    (tmp_path / "out").mkdir()
    extract_all(archive, tmp_path / "out", SilentProgress())
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"hello"


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, write, name):
    archive = write(tmp_path / "x.bin", {"good.txt": b"1", name: b"2"})
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(CorruptModel, match="leaves its folder"):
        extract_all(archive, out, SilentProgress())
    assert not list(out.iterdir()), "nothing is unpacked from such an archive"


def test_links_are_refused(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CorruptModel, match="link"):
        extract_all(write_zip(tmp_path / "x.zip", {"a": b""}, link="evil"), out, SilentProgress())
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        special = tarfile.TarInfo("evil")
        special.type, special.linkname = kind, "/etc/passwd"
        with pytest.raises(CorruptModel, match="link"):
            extract_all(write_tar(tmp_path / "x.tgz", {"a": b""}, special), out, SilentProgress())
    assert not list(out.iterdir())


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_cut_archive_is_refused(tmp_path, write):
    archive = write(tmp_path / "x.bin", {"a": bytes(range(256)) * 400})
    body = bytearray(archive.read_bytes())
    body[60:80] = b"\0" * 20
    archive.write_bytes(body[: -len(body) // 4] if write is write_tar else body)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CorruptModel, match="damaged"):
        extract_all(archive, out, SilentProgress())


def test_one_member_is_taken_out(tmp_path):
    archive = write_zip(tmp_path / "x.whl", {"p/model.gguf": b"GGUF" * 10, "p/__init__.py": b""})
    extract_member(archive, "p/model.gguf", tmp_path / "m", SilentProgress())
    assert (tmp_path / "m").read_bytes() == b"GGUF" * 10
    with pytest.raises(InvalidReference, match=r"It has p/model\.gguf"):
        extract_member(archive, "p/other.gguf", tmp_path / "n", SilentProgress())


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_wheel_with_a_bad_name_is_refused_whole(tmp_path, name):
    archive = write_zip(tmp_path / "x.whl", {"good": b"1", name: b"2"})
    with pytest.raises(CorruptModel):
        extract_member(archive, "good", tmp_path / "m", SilentProgress())
    assert not (tmp_path / "m").exists()


def test_an_archive_that_unpacks_to_more_than_the_disk_is_refused(tmp_path, monkeypatch):
    archive = write_zip(tmp_path / "bomb.zip", {"zeros": b"\0" * 10_000_000})
    assert archive.stat().st_size < 20_000

    class Usage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(OutOfDisk):
        extract_all(archive, out, SilentProgress())
    assert not list(out.iterdir())


def test_a_model_file_is_no_archive(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + b"\0" * 600)
    assert not is_archive(tmp_path / "m.gguf")
    assert not is_archive(tmp_path)
