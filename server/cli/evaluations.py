"""`slmops eval`: what was measured of models, and two of them side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed
from server.cli.models import AsJson, ModelName
from server.cli.terminal import print_json, print_line, print_note, print_table
from server.inference.fine_tuned_names import as_registered

if TYPE_CHECKING:
    from model_registry.evaluations import Evaluation

Other = Annotated[str, typer.Argument(metavar="OTHER", help="Another model's name.", callback=as_registered)]


def commands() -> typer.Typer:
    group = typer.Typer(help="What was measured of models; `slmops jobs create evaluate` measures.", no_args_is_help=True)
    group.command("show")(show)
    group.command("compare")(compare)
    return group


def show(model: ModelName, as_json: AsJson = False) -> None:
    """List what was measured of a model, the newest first."""
    found = _kept(model, None)
    if as_json:
        print_json([_described(each) for each in found])
    elif found:
        rows = [
            (each.version, each.kind, f"{each.created_at:%Y-%m-%d %H:%M}", name, f"{value:.4g}", _interval(each, name))
            for each in found
            for name, value in each.metrics.items()
        ]
        print_table(("VERSION", "KIND", "WHEN", "METRIC", "VALUE>", "95 %"), rows)
    else:
        print_line(f"nothing was measured of {model}; `slmops jobs create evaluate -p target={model} -p data=FILE` does")


def compare(model: ModelName, other: Other, as_json: AsJson = False) -> None:
    """Set the newest evaluation of one model beside that of another on the same data."""
    from jobs.tasks.evaluate.metrics import difference

    one, two = _pair(model, other)
    rows: list[dict[str, Any]] = []
    for name in [name for name in one.metrics if name in two.metrics]:
        scores = [each.details.get("scores", {}).get(name) for each in (one, two)]
        row: dict[str, Any] = {"metric": name, one.version: one.metrics[name], two.version: two.metrics[name]}
        if all(scores) and len(scores[0]) == len(scores[1]):
            found = difference(scores[0], scores[1])
            row |= {"difference": found.value, "low": found.low, "high": found.high, "is_sure": not found.low <= 0 <= found.high}
        rows.append(row)
    if as_json:
        print_json(rows)
        return
    cells = [(row["metric"], f"{row[one.version]:.4g}", f"{row[two.version]:.4g}", _difference(row)) for row in rows]
    print_table(("METRIC", f"{one.version}>", f"{two.version}>", "DIFFERENCE, 95 %"), cells)
    print_note(f"{one.details['num_questions']} questions, data sha256 {one.details['data_sha256'][:12]}")


def _pair(model: str, other: str) -> tuple[Evaluation, Evaluation]:
    """The newest of each on the same data."""
    ones, twos = _kept(model, "evaluate"), _kept(other, "evaluate")
    for one in ones:
        for two in twos:
            if one.details["data_sha256"] == two.details["data_sha256"] and (one.job, one.version) != (two.job, two.version):
                return one, two
    raise CommandFailed(f"{model} and {other} were never evaluated on the same data; `slmops jobs create evaluate` does that")


def _kept(model: str, kind: str | None) -> list[Evaluation]:
    from server.cli.evaluation_access import evaluations_of

    return evaluations_of(settings_from(), model, kind)


def _described(each: Evaluation) -> dict[str, Any]:
    return {
        "version": each.version,
        "kind": each.kind,
        "job": each.job,
        "created_at": each.created_at.isoformat(),
        "metrics": dict(each.metrics),
        "details": dict(each.details),
    }


def _interval(each: Evaluation, name: str) -> str:
    bounds = each.details.get("intervals", {}).get(name)
    return f"{bounds[0]:.3g} to {bounds[1]:.3g}" if bounds else ""


def _difference(row: dict[str, Any]) -> str:
    if "difference" not in row:
        return ""
    sure = "" if row["is_sure"] else ", may be chance"
    return f"{row['difference']:+.3g} ({row['low']:+.3g} to {row['high']:+.3g}{sure})"
