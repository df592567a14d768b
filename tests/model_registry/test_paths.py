"""Names that others give: what leaves a folder, cannot be a file everywhere, or goes through a link is refused."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from model_registry.errors import CorruptModel
from model_registry.paths import check_distinct, inside, safe_name

LEAVING = ["../x", "a/../../x", "/etc/passwd", "..", "..\\x", "C:\\x", "C:x", "\\\\host\\share", "\\x", "a/..", "//x"]
IMPOSSIBLE = [
    *("", ".", "./", "a\0b", "a\nb", "a\x1b[2Jb", "a\x7f", "a\u0085b", "a\ud800b", "a\\b", "a:b", "a:$DATA"),
    *("con", "NUL", "aux.gguf", "x/COM1.json", "lpt9", "a.", "a ", "x./y", "x" * 241, "/".join(["x" * 200] * 6), "é" * 121),
]


@pytest.mark.parametrize("name", LEAVING)
def test_a_name_that_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorruptModel, match=r"The hub holds the name .* leaves its folder"):
        inside(tmp_path, name, "The hub")


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_name_that_is_no_file_s_everywhere(name: str) -> None:
    with pytest.raises(CorruptModel):
        safe_name(name, "The hub")


@pytest.mark.parametrize("name", ["model.onnx", "onnx/m.onnx_data", "a b/ü.txt", "./x.json", "console.json", "x" * 240, ".x"])
def test_a_sound_name(tmp_path: Path, name: str) -> None:
    assert inside(tmp_path, name, "The hub") == tmp_path / name


def test_a_link_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    (downloads / "folder").symlink_to(tmp_path / "out")
    (downloads / "file").symlink_to(tmp_path / "nothing")
    for name in ("folder/x", "file", "folder"):
        with pytest.raises(CorruptModel, match="is a link"):
            inside(downloads, name, "The hub")


@pytest.mark.parametrize(
    "names", [["a.json", "A.json"], ["a", "a"], ["a", "a/b"], ["A", "a/b/c"], ["e\u0301", "\u00e9"], ["straße", "STRASSE"]]
)
def test_names_of_one_file(names: list[str]) -> None:
    with pytest.raises(CorruptModel, match="The archive holds"):
        check_distinct(map(PurePosixPath, names), "The archive")


def test_names_of_several_files() -> None:
    check_distinct(map(PurePosixPath, ["a/b", "a/c", "b", "ab", "c.json"]), "The archive")
