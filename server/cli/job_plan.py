"""What a job would do, on the terminal."""

from __future__ import annotations

from typing import Any

from server.cli.terminal import print_json, print_line, print_note, size, span


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
        ("disk", plan["disk_bytes"], size),
    )
    for name, value, shown in figures:
        if value is not None:
            print_line(f"{name}: {shown(value)}")
    for name in plan["outputs"]:
        print_line(f"registers: {name}")
    for warning in plan["warnings"]:
        print_note(warning)
