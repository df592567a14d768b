"""`slmops bench`: a load on the running daemon, or on any OpenAI-compatible server, at several numbers of clients."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.configuration import settings_from
from server.cli.failures import MISUSED, CommandFailed
from server.cli.terminal import print_json, print_note, print_table

if TYPE_CHECKING:
    from jobs.tasks.benchmark.load import Load, LoadReport, Target

_REQUESTS_PER_CLIENT = 2
_FEWEST_REQUESTS = 8


def bench(
    url: Annotated[str | None, typer.Option(help="Another server, up to and with /v1.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Left out: the server's default.")] = None,
    clients: Annotated[str, typer.Option(help="Numbers of concurrent clients, one run each.")] = "1,4,8,16",
    requests: Annotated[int | None, typer.Option(min=1, help="Per run; left out: two per client, at least eight.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Length of the answers.")] = 64,
    prompt_words: Annotated[int, typer.Option(min=1, help="Length of the prompts.")] = 12,
    shared_prefix_words: Annotated[int, typer.Option(min=0, help="Words that all prompts begin with.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with stable keys.")] = False,
) -> None:
    """Measure tokens per second and waiting times under load."""
    import asyncio

    from jobs.tasks.benchmark.load import Load, run_load

    counts = _counts(clients)
    target = _target(url, model)
    reports = []
    for count in counts:
        load = Load(
            num_clients=count,
            num_requests=requests or max(_FEWEST_REQUESTS, _REQUESTS_PER_CLIENT * count),
            max_tokens=max_tokens,
            prompt_words=prompt_words,
            shared_prefix_words=shared_prefix_words,
        )
        if not as_json:
            print_note(f"{load.num_requests} requests by {count} client{'s' if count > 1 else ''} ...")
        reports.append(asyncio.run(run_load(target, load)))
        _refuse_all_failed(target, load, reports[-1])
    if as_json:
        print_json([asdict(report) for report in reports])
    else:
        _print(reports)


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise CommandFailed(f"--clients {text!r} is not a list of positive numbers; write e.g. --clients 1,4,8", MISUSED)
    return counts


def _target(url: str | None, model: str | None) -> Target:
    from jobs.tasks.benchmark.load import Target
    from server.cli.daemon import Daemon, api_key_of

    settings = settings_from()
    if url is not None:
        if not url.startswith(("http://", "https://")):
            raise CommandFailed(f"--url {url!r} is not a server's address; write http://HOST:PORT/v1", MISUSED)
        return Target(url, model, api_key_of(settings))
    with Daemon.configured(settings) as daemon:
        return Target(f"{daemon.require().url}/v1", model, api_key_of(settings))


def _refuse_all_failed(target: Target, load: Load, report: LoadReport) -> None:
    if report.num_ok == 0:
        raise CommandFailed(f"none of {load.num_requests} requests to {target.url} was answered: {report.first_error}")


def _print(reports: list[LoadReport]) -> None:
    print_table(
        (
            "CLIENTS>",
            "TOKENS/S>",
            "TTFT P50>",
            "TTFT P99>",
            "GAP P50>",
            "GAP P99>",
            "PROMPT>",
            "CACHED>",
            "OK>",
            "ERRORS>",
        ),
        [
            (
                str(report.num_clients),
                f"{report.tokens_per_s:.1f}",
                _milliseconds(report.ttft_p50_s),
                _milliseconds(report.ttft_p99_s),
                _milliseconds(report.gap_p50_s),
                _milliseconds(report.gap_p99_s),
                f"{report.mean_prompt_tokens:.0f}",
                f"{report.mean_cached_tokens:.0f}",
                str(report.num_ok),
                str(report.num_errors),
            )
            for report in reports
        ],
    )
    for error in {report.first_error for report in reports if report.first_error}:
        print_note(f"first error: {error}")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
