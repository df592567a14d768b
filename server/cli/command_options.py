"""What all commands that use a daemon have in common: the option --url, and completion of what their arguments name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, get_args, get_origin

import typer

from server.cli.completion import COMPLETERS
from server.cli.configuration import DAEMON_URL

Command = Callable[..., Any]
Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="The daemon to use, here or elsewhere (SLMOPS_URL).")]


def add_shared_options(app: typer.Typer, without_daemon: frozenset[str]) -> None:
    """Gives each command of the tree its completions and, unless its name is in `without_daemon`, the option --url."""
    for registered in app.registered_commands:
        if registered.callback is not None and registered.name not in without_daemon:
            registered.callback = with_daemon_url(registered.callback)
        if registered.callback is not None:
            _complete(registered.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None and group.name not in without_daemon:
            add_shared_options(group.typer_instance, without_daemon=frozenset())


def with_daemon_url(command: Command) -> Command:
    """The command with the option --url, which holds while it runs."""
    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("url", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Url)

    @functools.wraps(command)
    def run(*arguments: Any, url: str | None = None, **values: Any) -> Any:
        with using_daemon(url):
            return command(*arguments, **values)

    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    return run


@contextmanager
def using_daemon(url: str | None) -> Iterator[None]:
    """In the block, commands use the daemon at this address; None changes nothing."""
    token = None if url is None else DAEMON_URL.set(url)
    try:
        yield
    finally:
        if token is not None:
            DAEMON_URL.reset(token)


def _complete(command: Command) -> None:
    """By what an argument's metavar, or an option's own name, says that it names."""
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        for info in get_args(parameter.annotation)[1:] if get_origin(parameter.annotation) is Annotated else ():
            completer = COMPLETERS.get(getattr(info, "metavar", None) or parameter.name)
            if completer is not None and info.autocompletion is None:
                info.autocompletion = completer
