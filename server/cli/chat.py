"""`slmops run`: one answer, or a chat, from a running daemon or from one inside this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.completion import COMPLETERS
from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed
from server.cli.missing_model import Yes, ensure_installed
from server.cli.model_names import names_at, names_in
from server.cli.prompt_input import read_prompt
from server.cli.run_words import RunWords, prompt_of, read_words

if TYPE_CHECKING:
    from server.cli.daemon import Daemon
    from server.settings.daemon import Settings

_WORDS_HELP = "The model, if the first word names one, and the prompt; `-` stands for standard input. Without a prompt: a chat."
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL] [PROMPT]...", help=_WORDS_HELP, autocompletion=COMPLETERS["MODEL"], show_default=False),
]


def run(
    words: Words = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Which model answers; every word is prompt then.")] = None,
    system: Annotated[str | None, typer.Option(help="The system message.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is deterministic; left out, the model's default.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens: small models may not find an end.")] = 1024,
    seed: Annotated[int | None, typer.Option(help="Makes a sampled answer reproducible.")] = None,
    history: Annotated[
        Path | None, typer.Option(help="File that keeps what is typed in a chat; nothing is kept by default.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Send a prompt to a model, or chat with it. Text that is piped in is appended to the prompt, or is the prompt."""
    from server.cli.chat_session import ChatSession
    from server.cli.conversation import Conversation

    settings = settings_from()
    given = {"temperature": temperature, "max_tokens": max_tokens, "seed": seed}
    options: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    with _daemon(settings) as running:
        names = names_at(running) if running else names_in(settings)
        requested = RunWords(model, prompt_of(words or [])) if model is not None else read_words(words or [], names)
        wanted = requested.model or (None if running else settings.model)

        def find_model(name: str) -> str:
            return ensure_installed(name, names, settings, assume_yes=yes)

        if wanted is not None:
            options["model"] = find_model(wanted)
        prompt = read_prompt(requested.prompt)
        with nullcontext(running) if running else _in_process(settings) as daemon:
            conversation = Conversation(daemon, options, system)
            if prompt is None:
                ChatSession(conversation, find_model).run(history)
            elif not conversation.send(prompt):
                raise CommandFailed("the model answered with no text; change the prompt, or allow more with --max-tokens")


@contextmanager
def _daemon(settings: Settings) -> Iterator[Daemon | None]:
    """The configured daemon; None when none runs. Raises CommandFailed when none runs at an address that the user named."""
    from server.cli.daemon import Daemon

    with Daemon.configured(settings) as daemon:
        if daemon.is_named:
            daemon.require()
        yield daemon if daemon.is_named or daemon.is_running() else None


def _in_process(settings: Settings) -> AbstractContextManager[Daemon]:
    from server.cli.in_process import daemon_in_process

    return daemon_in_process(settings.model_copy(update={"host": "127.0.0.1", "log_level": "error"}))
