"""The `slmops` program: which commands there are, and how they end as exit codes. Knows nothing of what they do."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import typer

from model_registry.telemetry import turn_off_telemetry
from server.cli import bench, chat, configuration, evaluations, jobs, keys, loaded, maintenance, models, pull, serve
from server.cli.failures import MISUSED, CommandFailed, ending
from server.cli.terminal import print_error


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
        ("gc", maintenance.collect_garbage),
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
    )
    for name, command in commands:
        app.command(name)(command)
    app.add_typer(pull.commands(), name="foundry")
    app.add_typer(jobs.commands(), name="jobs")
    app.add_typer(loaded.commands(), name="adapters")
    app.add_typer(evaluations.commands(), name="eval")
    app.add_typer(keys.commands(), name="keys")
    return app


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
