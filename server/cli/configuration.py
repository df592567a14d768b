"""`slmops config`, and how commands get their settings: flags over variables over slmops.toml over defaults."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from server.settings.daemon import Plain, Settings


DAEMON_URL: ContextVar[str | None] = ContextVar("daemon_url", default=None)  # of the option --url of the running command


def settings_from(**flags: Any) -> Settings:
    """The settings with these flags on top; None is a flag that was not given. Raises InvalidSettings."""
    from server.settings.daemon import Settings

    return Settings(**{"url": DAEMON_URL.get(), **flags})


def config(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Print every setting, its value, and where the value came from."""
    from server.settings.daemon import effective

    lines = effective(settings_from())
    if as_json:
        print_json({line.name: {"value": line.value, "origin": line.origin} for line in lines})
        return
    print_table(
        ("SETTING", "VALUE", "FROM", "MEANING"),
        [(line.name, _shown(line.value), line.origin, line.description) for line in lines],
    )


def _shown(value: Plain) -> str:
    match value:
        case None | []:
            return "-"
        case bool():
            return "true" if value else "false"
        case list():
            return ", ".join(value)
        case dict():
            return json.dumps(value) if value else "-"
        case _:
            return str(value)
