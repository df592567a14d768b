"""Damage of any kind raises CorruptModel with a plain message: never another exception, a hang, or a giant allocation."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_registry.conversion.formats.gguf.importer import GgufImporter
from model_registry.conversion.formats.gguf.reader import open_gguf
from model_registry.conversion.importer import ImportOptions
from model_registry.errors import CorruptModel, RegistryError, UnsupportedModel
from model_registry.progress import SilentProgress
from model_registry.records import Precision
from tests.doubles.tiny_gguf import Tiny, write_gguf

HEADER = struct.Struct("<4sIQQ")
FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    tiny = Tiny(layers=1, hidden=32, ffn=32, heads=2, kv_heads=1, weight_type="Q8_0", tied=True)
    return write_gguf(tmp_path_factory.mktemp("sound") / "sound.gguf", tiny).read_bytes()


def import_bytes(content: bytes, folder: Path) -> None:
    path = folder / "model.gguf"
    path.write_bytes(content)
    destination = folder / "out"
    destination.mkdir(exist_ok=True)
    GgufImporter().run(path, destination, ImportOptions(Precision.AUTO, measure=False), SilentProgress())


def test_a_sound_file_is_imported(sound: bytes, tmp_path: Path) -> None:
    import_bytes(sound, tmp_path)
    assert (tmp_path / "out" / "model.onnx").is_file()


@FUZZ
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncation_is_corrupt(sound: bytes, tmp_path: Path, share: float) -> None:
    with pytest.raises(CorruptModel):
        import_bytes(sound[: int(len(sound) * share)], tmp_path)


@FUZZ
@given(changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_are_imported_or_reported(sound: bytes, tmp_path: Path, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(sound)
    for share, value in changes:
        damaged[int(len(damaged) * share)] = value
    _imports_or_refuses(bytes(damaged), tmp_path)


@FUZZ
@given(place=st.integers(0, 1500), value=st.integers(0, 255))
def test_changed_header_bytes_are_imported_or_reported(sound: bytes, tmp_path: Path, place: int, value: int) -> None:
    damaged = bytearray(sound)
    damaged[place] = value
    _imports_or_refuses(bytes(damaged), tmp_path)


def _imports_or_refuses(content: bytes, folder: Path) -> None:
    try:
        import_bytes(content, folder)
    except (CorruptModel, UnsupportedModel) as error:
        message = error.message
    else:
        return
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too short"),
        (b"PK\x03\x04" + bytes(100), "does not begin with GGUF"),
        (HEADER.pack(b"GGUF", 1, 0, 0), "GGUF version 1"),
        (HEADER.pack(b"GGUF", 3 << 24, 0, 0), "big-endian"),
        (HEADER.pack(b"GGUF", 3, 1 << 60, 0), "announces 1152921504606846976 tensors"),
        (HEADER.pack(b"GGUF", 3, 0, 1 << 60), "announces 1152921504606846976 metadata values"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q", 1 << 50) + bytes(99), "a text of"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sI", 1, b"k", 77) + bytes(99), "unknown kind 77"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 5, 1 << 40), "a list of"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 1 << 20), "texts, more than"),
        (HEADER.pack(b"GGUF", 3, 0, 1) + struct.pack("<Q1sIQ2s", 1, b"k", 8, 2, b"\xff\xfe"), "not UTF-8"),
        (HEADER.pack(b"GGUF", 3, 0, 2) + struct.pack("<Q1sIB", 1, b"k", 0, 1) * 2, "'k' twice"),
    ],
)
def test_headers_that_lie(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=message):
        open_gguf(path)


@pytest.mark.parametrize(
    ("dims", "kind", "offset", "message"),
    [
        ((32,), 0, 0, "beyond the end"),
        ((1,), 0, 1 << 62, "beyond the end"),
        ((1 << 40, 1 << 40), 0, 0, "beyond the end"),
        ((33,), 8, 0, "impossible shape"),
        ((0,), 0, 0, "impossible shape"),
        ((1,), 999, 0, "type number 999"),
        ((1,) * 5, 0, 0, "5 dimensions"),
    ],
)
def test_tensors_that_lie(dims: tuple[int, ...], kind: int, offset: int, message: str, tmp_path: Path) -> None:
    info = struct.pack(f"<Q1sI{len(dims)}QIQ", 1, b"t", len(dims), *dims, kind, offset)
    path = tmp_path / "model.gguf"
    path.write_bytes(HEADER.pack(b"GGUF", 3, 1, 0) + info + bytes(64))
    with pytest.raises(RegistryError, match=message):
        open_gguf(path)


def test_parts_of_a_split_model_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "part.gguf", Tiny(metadata={"split.count": 2}))
    with pytest.raises(UnsupportedModel, match=r"llama-gguf-split --merge"):
        open_gguf(path)
