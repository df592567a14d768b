"""The `slmops` program: which commands there are, and how they end as exit codes. Knows nothing of what they do."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from model_registry.telemetry import turn_off_telemetry
from server.cli import (
    backups,
    bench,
    chat,
    configuration,
    disk,
    evaluations,
    jobs,
    keys,
    loaded,
    log_lines,
    maintenance,
    models,
    pull,
    serve,
)
from server.cli.command_options import Url, add_shared_options, using_daemon
from server.cli.failures import MISUSED, CommandFailed, ending
from server.cli.terminal import print_error

_WITHOUT_DAEMON = frozenset(
    {"serve", "config", "version", "help", "providers", "doctor", "foundry", "bench"}
)  # bench has its own --url


def build() -> typer.Typer:
    """A new command tree."""
    app = typer.Typer(
        name="slmops",
        help="Serve small language models on this machine, through an OpenAI-compatible API.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    commands = (
        ("serve", serve.serve),
        ("run", chat.run),
        ("pull", pull.pull),
        ("list", models.list_models),
        ("show", models.show),
        ("rm", models.remove),
        ("alias", models.alias),
        ("verify", maintenance.verify),
        ("disk", disk.disk),
        ("gc", disk.collect_garbage),
        ("backup", backups.backup),
        ("restore", backups.restore),
        ("lineage", models.lineage),
        ("pipeline", jobs.pipeline),
        ("catalog", pull.catalog),
        ("ps", loaded.loaded_models),
        ("load", loaded.load),
        ("reload", loaded.reload),
        ("stop", loaded.stop),
        ("reset", loaded.reset),
        ("providers", maintenance.providers),
        ("doctor", maintenance.doctor),
        ("bench", bench.bench),
        ("config", configuration.config),
        ("version", maintenance.version),
        ("logs", log_lines.logs),
        ("help", explain),
    )
    for name, command in commands:
        app.command(name)(command)
    app.add_typer(pull.commands(), name="foundry")
    app.add_typer(jobs.commands(), name="jobs")
    app.add_typer(loaded.commands(), name="adapters")
    app.add_typer(evaluations.commands(), name="eval")
    app.add_typer(keys.commands(), name="keys")
    add_shared_options(app, without_daemon=_WITHOUT_DAEMON)
    app.callback()(_choose_daemon)
    return app


Topic = Annotated[list[str] | None, typer.Argument(metavar="[COMMAND]...", help="A command, as in `slmops help jobs submit`.")]


def explain(command: Topic = None) -> None:
    """Explain a command, or list all of them."""
    build()([*(command or []), "--help"], prog_name="slmops", standalone_mode=False)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        maintenance.version()
        raise typer.Exit


ShowVersion = Annotated[
    bool, typer.Option("--version", "-v", "-V", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def _choose_daemon(context: typer.Context, url: Url = None, version: ShowVersion = False) -> None:
    context.with_resource(using_daemon(url))


def execute(arguments: Sequence[str]) -> int:
    """Runs one command; returns its exit code. Nothing but a code and a red line leaves a command that fails."""
    try:
        result = build()(list(arguments), prog_name="slmops", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("SLMOPS_TRACEBACK"):
            raise
        return _fail(error)
    return result if isinstance(result, int) else 0


def main() -> None:
    turn_off_telemetry()
    signal.signal(signal.SIGTERM, _interrupt)  # ended by a supervisor, a command cleans up as after ctrl-C
    code = execute(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has ended; Python must not try to flush it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = code or 1
    sys.exit(code)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(error: BaseException) -> int:
    if isinstance(error, typer.TyperException):
        print_error(f"{error.format_message()} (see `slmops --help`)")
        return MISUSED
    end = ending(error)
    for line in end.message.splitlines() if isinstance(error, CommandFailed) else filter(None, [end.message]):
        print_error(line)
    return end.exit_code
