"""Token ids of a tuning's data on disk, so that data is read and tokenized once: by the plan, or by the first attempt of a run.

They are used again only for the same files, by their SHA-256, and where all else is the same that decides them. What cannot be
kept, as on a full disk, is made again. Knows nothing of how examples become tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from jobs.tasks.finetune.rendering import IGNORED, PreferenceTokens, Rendered, Tokens

_INDEX = "tokens.json"
_FORMAT = 1
_ITEM_BYTES = array("i").itemsize
_HEAD = 4  # integers before an example's ids: its line, and three lengths
_NO_ANSWERS = -1  # in the place of two lengths: of `Tokens`


@dataclass(frozen=True, slots=True)
class KeptData:
    """The examples of one file. path: of their tokens; sha256: of the file; left_out: what is said of lines that are not used."""

    path: Path
    sha256: str
    left_out: tuple[str, ...]

    def examples(self) -> Iterator[Rendered]:
        """In the order in which they were written. Takes the memory of one."""
        with self.path.open("rb") as file:
            while head := file.read(_HEAD * _ITEM_BYTES):
                line, *lengths = array("i", head)
                ids = array("i", file.read(sum(max(0, length) for length in lengths) * _ITEM_BYTES)).tolist()
                yield _example(line, lengths, ids)


class KeptTokens:
    """folder: where they are kept, which need not exist. files: by their role. made_by: what else decides the tokens."""

    def __init__(self, folder: Path, files: Mapping[str, Path], made_by: Mapping[str, Any]) -> None:
        self._folder = folder
        self._files = files
        self._made_by = json.dumps({**made_by, "format": _FORMAT, "versions": _versions()}, sort_keys=True)
        self._kept: dict[str, dict[str, Any]] = {}
        self._is_possible = True

    def read(self) -> dict[str, KeptData] | None:
        """By role. None when nothing is kept, or another file, another model or other settings would make other tokens."""
        try:
            index = json.loads((self._folder / _INDEX).read_text(encoding="utf-8"))
            if index["made_by"] != self._made_by or index["data"].keys() != self._files.keys():
                return None
            for role, kept in index["data"].items():
                with self._files[role].open("rb") as file:
                    is_same = hashlib.file_digest(file, "sha256").hexdigest() == kept["sha256"]
                if not is_same or self._path(role).stat().st_size != kept["num_bytes"]:
                    return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        return {role: KeptData(self._path(role), each["sha256"], tuple(each["left_out"])) for role, each in index["data"].items()}

    def passing(self, role: str, examples: Iterable[Rendered]) -> Iterator[Rendered]:
        """The same examples, each of which is written on its way."""
        with contextlib.ExitStack() as opened:
            file = None
            for each in examples:
                if self._is_possible:
                    try:
                        if file is None:
                            self._folder.mkdir(parents=True, exist_ok=True)
                            (self._folder / _INDEX).unlink(missing_ok=True)
                            file = opened.enter_context(self._path(role).open("wb"))
                        file.write(_record(each))
                    except OSError:
                        self._give_up()
                yield each
            try:
                opened.close()
            except OSError:
                self._give_up()

    def complete(self, role: str, sha256: str, left_out: Iterable[str]) -> None:
        """All examples of the file have passed. The tokens can be read once those of all files are complete."""
        try:
            self._kept[role] = {"sha256": sha256, "left_out": list(left_out), "num_bytes": self._path(role).stat().st_size}
            if self._is_possible and self._kept.keys() == self._files.keys():
                beside = self._folder / f"{_INDEX}.new"
                beside.write_text(json.dumps({"made_by": self._made_by, "data": self._kept}), encoding="utf-8")
                beside.replace(self._folder / _INDEX)
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Nothing is kept; the examples go on."""
        self._is_possible = False
        for role in self._files:
            with contextlib.suppress(OSError):
                self._path(role).unlink(missing_ok=True)

    def _path(self, role: str) -> Path:
        return self._folder / f"{role}.tokens"


def digest_of_texts(served: Path) -> str:
    """Of what decides the tokens in a folder that is served: tokenizer, chat template, configurations."""
    digest = hashlib.sha256()
    for path in sorted(served.iterdir()):
        if path.suffix in (".json", ".jinja"):
            with path.open("rb") as file:
                digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    """Of the code that renders and encodes."""
    found = {}
    for name in ("slmops", "tokenizers", "jinja2"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _record(example: Rendered) -> bytes:
    """Integers: the line, three lengths, then ids. Of `Tokens` one length counts, and ids that are not learned are ~id."""
    if isinstance(example, Tokens):
        ids = [id_ if label != IGNORED else ~id_ for id_, label in zip(example.input_ids, example.labels, strict=True)]
        return array("i", [example.line, len(ids), _NO_ANSWERS, _NO_ANSWERS, *ids]).tobytes()
    parts = (example.prompt_ids, example.chosen_ids, example.rejected_ids)
    return array("i", [example.line, *map(len, parts), *(id_ for part in parts for id_ in part)]).tobytes()


def _example(line: int, lengths: list[int], ids: list[int]) -> Rendered:
    if lengths[1] == _NO_ANSWERS:
        return Tokens(line, [id_ if id_ >= 0 else ~id_ for id_ in ids], [id_ if id_ >= 0 else IGNORED for id_ in ids])
    rest = iter(ids)
    return PreferenceTokens(line, *(list(islice(rest, length)) for length in lengths))
