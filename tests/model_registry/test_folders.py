"""Foreign folders: links that stay inside or lead into the hub's cache are followed, everything else is refused unread."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_registry import paths
from model_registry.errors import CorruptModel, RegistryError, UnsupportedModel
from model_registry.paths import check_source
from model_registry.pull import pull
from model_registry.registry import Registry
from tests.doubles.registry_graphs import move_weights, write_genai_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("root:x:0")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_genai_folder(tmp_path / "model")


def contents(home: Path) -> set[bytes]:
    return {path.read_bytes() for path in home.rglob("*") if path.is_file() and path.suffix != ".db"}


@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer.json", "README.md", "sub/x.json", "model.onnx"])
def test_a_link_to_a_file_elsewhere(registry: Registry, home: Path, folder: Path, secret: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(secret)
    with pytest.raises(CorruptModel, match=r"is a link to .*outside the model's folder"):
        pull(registry, str(folder))
    assert b"root:x:0" not in contents(home)
    assert registry.models() == ()


def test_the_neighbours_of_a_graph_that_is_named_by_itself(registry: Registry, home: Path, folder: Path, secret: Path) -> None:
    (folder / "special_tokens_map.json").symlink_to(secret)
    with pytest.raises(CorruptModel, match="is a link to"):
        pull(registry, str(folder / "model.onnx"))
    assert b"root:x:0" not in contents(home)


def test_weights_behind_a_linked_folder(registry: Registry, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    move_weights(folder / "model.onnx", "data/w", write=False)
    (tmp_path / "weights" / "w").write_bytes(bytes(16 * 8 * 4))
    (folder / "data").symlink_to(tmp_path / "weights")
    with pytest.raises(CorruptModel, match="is a link to"):
        pull(registry, str(folder))


def test_a_linked_folder_that_stays_inside_is_refused_too(folder: Path) -> None:
    (folder / "real").mkdir()
    (folder / "again").symlink_to(folder / "real")
    with pytest.raises(CorruptModel, match="is a link to a folder"):
        check_source(folder)


def test_weights_in_a_hidden_folder(registry: Registry, folder: Path) -> None:
    (folder / ".cache").mkdir()
    move_weights(folder / "model.onnx", ".cache/w")
    with pytest.raises(CorruptModel, match="hidden"):
        pull(registry, str(folder))


def test_links_within_the_folder(registry: Registry, folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "kept.json")
    (folder / "tokenizer.json").symlink_to("kept.json")
    version = pull(registry, str(folder))
    assert not (version.variants[0].folder / "tokenizer.json").is_symlink()


def test_the_hub_s_cache(registry: Registry, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--tiny"
    blobs = write_genai_folder(repository / "blobs")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert pull(registry, str(snapshot)).number == 1
    (snapshot / "README.md").symlink_to("../../refs")
    with pytest.raises(CorruptModel, match="is a link to"):
        pull(registry, str(snapshot), name="other")


def dangle(path: Path) -> None:
    path.symlink_to("nowhere")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path may have a hundred characters
        opened.bind(path.name)
        os.chdir(here)


@pytest.mark.parametrize("name", ["tokenizer.json", "more.onnx", "model.safetensors"])
@pytest.mark.parametrize("make", [os.mkfifo, make_socket, dangle], ids=["pipe", "socket", "dangling"])
def test_what_is_no_file_is_not_opened(registry: Registry, folder: Path, name: str, make: Callable[[Path], None]) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(CorruptModel, match=r"not a file|cannot be read|outside the model's folder"):
        pull(registry, str(folder))


@pytest.mark.parametrize("name", ["x.gguf", "x.onnx", "x.zip"])
def test_a_pipe_by_itself_is_not_opened(registry: Registry, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(RegistryError, match="not a file"):
        pull(registry, str(tmp_path / name))


def test_a_device_is_not_opened(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="not a file"):
        pull(registry, "/dev/zero", name="zero")


def test_a_folder_of_everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MAX_FILES", 3)
    with pytest.raises(UnsupportedModel, match="more than 3 files"):
        check_source(folder)
