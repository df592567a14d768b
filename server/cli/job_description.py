"""A job in lines for people: what was requested, how far it is, what it made."""

from __future__ import annotations

import json
from typing import Any

from server.cli.terminal import amount, span

COLUMNS = ("JOB", "KIND", "STATUS", "STAGE", "DONE>", "LEFT>", "MADE", "AGE>")


def row(job: dict[str, Any], now: float) -> tuple[str, ...]:
    """Of the table with these columns. now: in seconds since 1970."""
    progress, outcome = job["progress"], job["outcome"]
    is_going = not job["ended_at"]
    done = amount(progress["step"], progress["total"], progress["unit"]) if is_going and progress["total"] else "-"
    left = span(progress["time_left_s"]) if job["status"] == "running" and progress["time_left_s"] else "-"
    made = (outcome or {}).get("version") or "-"
    stage = stage_of(progress) if is_going and progress["stage"] else "-"
    return (job["id"], job["kind"], job["status"], stage, done, left, made, span(now - job["created_at"]))


def stage_of(progress: dict[str, Any]) -> str:
    """`2 of 5: training`."""
    number, total = progress.get("stage_number"), progress.get("num_stages")
    return f"{number} of {total}: {progress['stage']}" if number and total else str(progress["stage"])


def step_of(job: dict[str, Any]) -> str:
    """`step 2 of 3 'small' (quantize)`; empty for a job that is no step of a pipeline."""
    notes = job["metadata"]
    if not job["pipeline"] or "step" not in notes:
        return ""
    place = f" {notes['step_number']} of {notes['num_steps']}" if "step_number" in notes and "num_steps" in notes else ""
    return f"step{place} {notes['step']!r} ({job['kind']})"


def description(job: dict[str, Any]) -> list[str]:
    lines = [f"{job['id']}: {job['kind']}, {job['status']}, attempt {job['attempt']}"]
    lines += [f"pipeline: {job['pipeline']}, {step}"] if (step := step_of(job)) else []
    lines += [f"params: {json.dumps(job['params'], ensure_ascii=False)}", f"folder: {job['folder']}"]
    lines += [f"plan: {sentence}" for sentence in (job["plan"] or {}).get("summary", ())]
    progress = job["progress"]
    if progress["stage"]:
        done = f", {amount(progress['step'], progress['total'], progress['unit'])}" if progress["step"] or progress["total"] else ""
        lines.append(f"stage: {stage_of(progress)}{done}")
    lines += [f"{name}: {value:.6g}" for name, value in progress["metrics"].items() if value is not None and not job["outcome"]]
    if job["failure"]:
        lines.append(f"failure: {job['failure']['code']}: {job['failure']['message']}")
    return [*lines, *outcome(job)]


def outcome(job: dict[str, Any]) -> list[str]:
    from jobs.job import WORK

    ended = job["outcome"] or {"version": None, "metrics": {}, "files": [], "details": {}}
    details = ended["details"]
    lines = [f"made: {ended['version']}"] if ended["version"] else []
    lines += [f"questions: {details['num_questions']}"] if "num_questions" in details else []
    lines += [_figure(name, value, details) for name, value in ended["metrics"].items() if value is not None]
    lines += [f"best params: {json.dumps(best, ensure_ascii=False)}"] if (best := _best_params(job, details)) else []
    lines += [f"folder: {folder}"] if (folder := details.get("folder")) else []
    lines += [f"worse: {sentence}" for sentence in details.get("regressions", ())]
    lines += [f"note: {sentence}" for sentence in details.get("warnings", ())]
    return lines + [f"file: {job['folder']}/{WORK}/{file}" for file in ended["files"]]


def interval(bounds: list[float] | None) -> str:
    """`0.09 to 0.91`; empty when there is none."""
    return f"{bounds[0]:.3g} to {bounds[1]:.3g}" if bounds else ""


def _figure(name: str, value: float, details: dict[str, Any]) -> str:
    bounds = details.get("intervals", {}).get(name)
    between = f" (95 %: {interval(bounds)})" if isinstance(bounds, list) else ""
    return f"{name}: {value:.6g}{between}"


def _best_params(job: dict[str, Any], details: dict[str, Any]) -> Any:
    return details.get("params") if job["kind"] == "search" else None
