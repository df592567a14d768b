"""Tokens that are kept on disk: the same examples come back, and only for the same files made in the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.tasks.finetune.kept_tokens import KeptTokens, digest_of_texts
from jobs.tasks.finetune.rendering import IGNORED, PreferenceTokens, Rendered, Tokens

SUPERVISED: Sequence[Rendered] = [Tokens(1, [0, 7, 8], [IGNORED, 7, 8]), Tokens(4, [2**31 - 1, 0], [IGNORED, 0])]
PAIRS: Sequence[Rendered] = [PreferenceTokens(2, [1, 2, 3], [4], [5, 6]), PreferenceTokens(3, [], [0], [])]


def files_in(folder: Path) -> dict[str, Path]:
    made = {role: folder / f"{role}.jsonl" for role in ("training", "validation")}
    for role, path in made.items():
        path.write_text(role)
    return made


def keep(folder: Path, made_by: dict[str, object], examples: Sequence[Rendered] = SUPERVISED) -> dict[str, Path]:
    files = files_in(folder)
    kept = KeptTokens(folder / "planned", files, made_by)
    for role, path in files.items():
        assert list(kept.passing(role, iter(examples))) == examples
        kept.complete(role, hashlib.sha256(path.read_bytes()).hexdigest(), [f"{role} said so"])
    return files


@pytest.mark.parametrize("examples", [SUPERVISED, PAIRS])
def test_the_same_examples_come_back(tmp_path: Path, examples: Sequence[Rendered]) -> None:
    files = keep(tmp_path, {"max_length": 8}, examples)
    found = KeptTokens(tmp_path / "planned", files, {"max_length": 8}).read()
    assert found is not None
    assert list(found) == ["training", "validation"]
    assert list(found["validation"].examples()) == list(examples)
    assert found["training"].left_out == ("training said so",)
    assert found["training"].sha256 == hashlib.sha256(b"training").hexdigest()


@pytest.mark.parametrize("change", ["settings", "content", "a file more", "a file less", "cut", "damaged", "gone"])
def test_what_was_made_otherwise_is_not_used(tmp_path: Path, change: str) -> None:
    files, made_by = keep(tmp_path, {"max_length": 8}), {"max_length": 8}
    match change:
        case "settings":
            made_by = {"max_length": 9}
        case "content":
            files["validation"].write_text("changed")
        case "a file more":
            files["further"] = files["training"]
        case "a file less":
            del files["validation"]
        case "cut":
            path = tmp_path / "planned/training.tokens"
            path.write_bytes(path.read_bytes()[:-4])
        case "damaged":
            (tmp_path / "planned/tokens.json").write_text("[]")
        case "gone":
            (tmp_path / "planned/tokens.json").unlink()
    assert KeptTokens(tmp_path / "planned", files, made_by).read() is None


def test_tokens_of_one_file_of_two_are_not_used(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    kept = KeptTokens(tmp_path / "planned", files, {})
    list(kept.passing("training", iter(SUPERVISED)))
    kept.complete("training", hashlib.sha256(b"training").hexdigest(), [])
    assert kept.read() is None


def test_what_cannot_be_written_is_not_kept_and_all_else_goes_on(tmp_path: Path) -> None:
    (tmp_path / "planned").write_text("a file in the folder's place")
    files = keep(tmp_path, {})
    assert KeptTokens(tmp_path / "planned", files, {}).read() is None


def test_the_digest_is_of_what_decides_the_tokens(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.onnx").write_text("weights")
    before = digest_of_texts(tmp_path)
    (tmp_path / "model.onnx").write_text("other weights")
    assert digest_of_texts(tmp_path) == before
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert digest_of_texts(tmp_path) != before
