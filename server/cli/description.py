"""Descriptions of records, and plans of jobs, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from server.cli.terminal import amount, print_json, print_line, print_note, size, span


def outline(values: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """One line per value; what is empty is left out; bytes are readable, hashes short."""
    indent = "  " * depth
    for key, value in values.items():
        if value is None or value in ("", [], {}):
            continue
        match value:
            case Mapping():
                yield f"{indent}{key}:"
                yield from outline(value, depth + 1)
            case list():
                yield f"{indent}{key}:"
                yield from _items(value, depth + 1)
            case _:
                yield f"{indent}{key}: {_scalar(key, value)}"


def _items(values: Sequence[Any], depth: int) -> Iterator[str]:
    for value in values:
        if not isinstance(value, Mapping):
            yield "  " * depth + f"- {value}"
            continue
        lines = list(outline(value, depth + 1))
        yield "  " * depth + "- " + lines[0].strip()
        yield from lines[1:]


def _scalar(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return size(value)
    if key.endswith("sha256") or key == "digest":
        return f"{value}"[:16]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_plan(plan: dict[str, Any], as_json: bool) -> None:
    """plan: as `/admin/job-plans` answers it."""
    if as_json:
        print_json(plan)
        return
    for sentence in plan["summary"]:
        print_line(sentence)
    figures = (
        ("steps", plan["num_steps"], str),
        ("takes about", plan["duration_s"], span),
        ("memory", plan["memory_bytes"], size),
        ("disk", plan["disk_bytes"] or None, size),
        ("downloads", plan["download_bytes"] or None, lambda count: amount(count, None, "bytes")),
    )
    for name, value, shown in figures:
        if value is not None:
            print_line(f"{name}: {shown(value)}")
    for name in plan["outputs"]:
        print_line(f"registers: {name}")
    if plan["stages"]:
        print_line(f"stages: {', '.join(plan['stages'])}")
    for warning in plan["warnings"]:
        print_note(warning)
