"""`slmops run`: one answer, or a conversation, from a running daemon or from one inside this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.configuration import settings_from
from server.cli.failures import MISUSED, CommandFailed

if TYPE_CHECKING:
    from server.cli.daemon import Daemon
    from server.settings.daemon import Settings


def run(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; `-` reads standard input. Without it: a chat.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Which model answers.")] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is deterministic; left out, the model's default.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens: small models may not find an end.")] = 1024,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer reproducible.")] = None,
) -> None:
    """Send a prompt to a model, or chat with it when no PROMPT is given (piped standard input is the prompt then)."""
    question = _question(prompt)
    settings = settings_from(model=model)
    options = {"model": model, "temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    given: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    with _daemon(settings, given) as daemon:
        from server.cli.conversation import Conversation

        conversation = Conversation(daemon, given, system)
        if question is None:
            conversation.chat()
        elif not conversation.send(question):
            raise CommandFailed("the model answered with no text; change the prompt, or allow more with --max-tokens")


def _question(prompt: str | None) -> str | None:
    """The prompt to send; None for a chat."""
    if prompt is None and sys.stdin.isatty():
        return None
    question = sys.stdin.read() if prompt in (None, "-") else prompt
    if question is None or not question.strip():
        raise CommandFailed("the prompt is empty; give a PROMPT or pipe one in", MISUSED)
    return question


@contextmanager
def _daemon(settings: Settings, options: dict[str, object]) -> Iterator[Daemon]:
    """The configured daemon if it runs, else one in this process, with the model pulled first if it is missing."""
    from server.cli.daemon import Daemon

    with Daemon.configured(settings) as daemon:
        if daemon.is_running():
            yield daemon
            return
    from server.cli.in_process import daemon_in_process
    from server.cli.serve import settings_with_model

    own = settings_with_model(model=settings.model, host="127.0.0.1", log_level="error")
    if "model" in options:
        options["model"] = own.model
    with daemon_in_process(own) as daemon:
        yield daemon
