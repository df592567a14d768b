"""`slmops keys`: API keys, created, listed, revoked and removed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.configuration import settings_from
from server.cli.failures import MISUSED, CommandFailed
from server.cli.models import AsJson
from server.cli.terminal import Wide, print_json, print_line, print_note, print_table
from server.principal import AccessScope

if TYPE_CHECKING:
    from server.admin.key_bodies import KeyBody, NewKeyBody

KeyName = Annotated[str, typer.Argument(metavar="KEY", help="A key's id or name.")]
Expires = Annotated[str | None, typer.Option(metavar="SPAN", help="How long it is valid: 90d, 12h; by default for ever.")]
_COLUMNS = ("ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "STATUS")


def commands() -> typer.Typer:
    group = typer.Typer(help="API keys: which clients may use the daemon, and for what.", no_args_is_help=True)
    for name, command in (("create", create), ("list", list_keys), ("revoke", revoke), ("rm", remove)):
        group.command(name)(command)
    return group


def create(
    name: Annotated[str, typer.Option(help="What to call it: letters, digits, dots, dashes, underscores.")],
    scope: Annotated[list[AccessScope], typer.Option("--scope", help="What it may do; may be given several times.")],
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Create a key, and print its secret, which is shown only now. With the first key, every request needs one."""
    from server.cli.key_access import open_key_manager

    span_s = _span(expires)
    with open_key_manager(settings_from()) as manager:
        is_first = not manager.listed()
        made = manager.create(name, [each.value for each in scope], span_s)
    if as_json:
        print_json(made.model_dump())
    else:
        print_line(made.secret)
    for line in _remarks(made, is_first):
        print_note(line)


def list_keys(as_json: AsJson = False, wide: Wide = False) -> None:
    """List the keys: what each may do, and until when. Secrets are not kept, so they cannot be shown."""
    from server.cli.key_access import open_key_manager

    with open_key_manager(settings_from()) as manager:
        found = manager.listed()
    if as_json:
        print_json([each.model_dump() for each in found])
    elif found:
        print_table(_COLUMNS, [_row(each) for each in found], least=("CREATED", "EXPIRES", "ID"), wide=wide)
    else:
        print_line("no keys; `slmops keys create --name NAME --scope inference` creates one")


def revoke(key: KeyName, as_json: AsJson = False) -> None:
    """Revoke a key: it opens nothing any more, and stays in the list."""
    from server.cli.key_access import open_key_manager

    with open_key_manager(settings_from()) as manager:
        gone = manager.revoke(key)
    if as_json:
        print_json(gone.model_dump())
    else:
        print_line(f"{gone.id} ({gone.name}) is revoked")


def remove(key: KeyName) -> None:
    """Remove a key from the registry on this machine. Once none is left, requests on loopback need none again."""
    from model_registry.database import Database
    from model_registry.keys import KeyStore
    from server.cli.key_access import require_home_of_daemon

    settings = settings_from()
    require_home_of_daemon(settings)
    with Database(settings.home) as database:
        store = KeyStore(database)
        gone = store.remove(key)
        is_last = not store.all_keys()
    print_line(f"{gone.id} ({gone.name}) is removed")
    if is_last and settings.api_key is None:
        print_note("no key is left: a daemon on loopback answers requests without a key from now on")


# ---- inside ----


def _span(text: str | None) -> float | None:
    from server.settings.units import parse_span

    try:
        return None if text is None else parse_span(text)
    except ValueError as error:
        raise CommandFailed(f"--expires {error}", MISUSED) from None


def _remarks(made: NewKeyBody, is_first: bool) -> list[str]:
    """What the person should know beside the secret."""
    until = "for ever" if made.expires_at is None else f"until {_day(made.expires_at)}"
    lines = [f"{made.id} ({made.name}), {', '.join(made.scopes)}, valid {until}; its secret is shown only now."]
    if is_first:
        lines.append(
            "This is the first key: from now on every request needs a key, also from this machine. Clients send it as their API "
            "key; other slmops commands send SLMOPS_API_KEY. `slmops keys rm` of the last key undoes that."
        )
        if AccessScope.ADMIN not in made.scopes:
            lines.append(
                "It does not have the scope admin, so it can neither load models nor manage keys over HTTP. "
                "`slmops keys` on this machine can always manage them."
            )
    return lines


def _row(key: KeyBody) -> tuple[str, ...]:
    expires = "never" if key.expires_at is None else _day(key.expires_at)
    return (key.id, key.name, ", ".join(key.scopes), _day(key.created_at), expires, key.status)


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
