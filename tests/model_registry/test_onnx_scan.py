"""ONNX files are counted before they are read: masses of empty fields, lengths beyond the file, places that cannot be."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from model_registry.conversion.formats.onnx import scan as onnx_scan
from model_registry.conversion.formats.onnx.graph import read_graph
from model_registry.errors import CorruptModel
from tests.doubles.registry_graphs import move_weights, write_graph


def varint(value: int) -> bytes:
    pieces = bytearray()
    while value > 127:
        pieces.append(value & 127 | 128)
        value >>= 7
    return bytes([*pieces, value])


def message(field: int, body: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(body)) + body


EMPTY = 100_000
MASSES = {
    "nodes of the graph": message(7, b"\x0a\x00" * EMPTY),
    "inputs of a node": message(7, message(1, b"\x0a\x00" * EMPTY)),
    "attributes of a node": message(7, message(1, b"\x2a\x00" * EMPTY)),
    "strings of an attribute": message(7, message(1, message(5, b"\x4a\x00" * EMPTY))),
    "nodes of an inner graph": message(7, message(1, message(5, message(6, b"\x0a\x00" * EMPTY)))),
    "external data of a weight": message(7, message(5, b"\x6a\x00" * EMPTY)),
    "functions": b"\xca\x01\x00" * EMPTY,
    "metadata": message(7, b"") + b"\x72\x00" * EMPTY,
}


@pytest.mark.parametrize("name", MASSES)
def test_masses_of_empty_fields_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(onnx_scan, "MAX_FIELDS", 20_000)
    (tmp_path / "model.onnx").write_bytes(MASSES[name])
    onnx.ModelProto()  # loaded before memory is measured
    tracemalloc.start()
    with pytest.raises(CorruptModel, match="more than 20000 nodes and fields"):
        read_graph(tmp_path / "model.onnx")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\x3a", b"\x3a\x05\x0a", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff" * 20, b"\x3b\x00", b"\x08"),
        *(b"\x3a\x02\x0a\x05", b"\x0d\x01", message(7, message(1, b"\x0a\x7f"))),
    ],
)
def test_what_is_no_protobuf(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(body)
    with pytest.raises(CorruptModel, match="cut off or damaged"):
        read_graph(tmp_path / "model.onnx")


def test_graphs_within_graphs_end(tmp_path: Path) -> None:
    body = b""
    for _ in range(200):
        body = message(7, b"") if not body else message(1, message(5, message(6, body)))
    (tmp_path / "model.onnx").write_bytes(message(7, body))
    with pytest.raises(CorruptModel, match="cut off or damaged"):
        read_graph(tmp_path / "model.onnx")


def test_a_file_that_is_larger_than_protobuf_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_scan, "MAX_BYTES", 100)
    write_graph(tmp_path / "model.onnx")
    with pytest.raises(CorruptModel, match="at most 2"):
        read_graph(tmp_path / "model.onnx")


def place(**values: str) -> Callable[[Any], None]:
    """Of the weight's external data."""

    def change(tensor: Any) -> None:
        for entry in tensor.external_data:
            entry.value = values.get(entry.key, entry.value)

    return change


def dims(*values: int) -> Callable[[Any], None]:
    def change(tensor: Any) -> None:
        tensor.dims[:] = values

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(place(offset="-4"), place(length="-512"), place(offset="-512", length="1024"), place(offset="512"), place(length="4")),
        *(place(offset="1" * 30), place(length="x"), place(offset="\u0661"), place(offset="1_0"), place(offset=" 1")),
        *(dims(-16, -8), dims(1 << 40, 1 << 40), dims(16, 9), place(location="a\x00b"), place(location=".")),
        *(place(location="con"), place(location="a/../w"), place(location="C:w"), place(location="/dev/zero")),
    ],
)
def test_a_weight_s_place_that_cannot_be(tmp_path: Path, change: Callable[[Any], None]) -> None:
    write_graph(tmp_path / "model.onnx")
    move_weights(tmp_path / "model.onnx", "w")
    model = onnx.load_model(tmp_path / "model.onnx", load_external_data=False)
    change(model.graph.initializer[0])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CorruptModel):
        read_graph(tmp_path / "model.onnx")


def test_a_sound_graph(tmp_path: Path) -> None:
    write_graph(tmp_path / "model.onnx")
    move_weights(tmp_path / "model.onnx", "w")
    assert read_graph(tmp_path / "model.onnx").data_files == ("w",)
