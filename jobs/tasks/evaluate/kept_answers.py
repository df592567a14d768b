"""Answers in a file of the job, a line each, so that nothing is asked twice."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.tasks.evaluate.metrics import Answered


def kept_answers(path: Path) -> dict[int, Answered]:
    """A last line that was cut is not there."""
    found: dict[int, Answered] = {}
    if path.exists():
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        path.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
        for line in filter(None, whole.split("\n")):
            row = json.loads(line)
            found[row["number"]] = Answered(row["text"], tuple((name, arguments) for name, arguments in row["calls"]))
    return found
