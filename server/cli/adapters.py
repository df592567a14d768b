"""`slmops adapters`: LoRA adapters that a running daemon serves on one loaded base, as `MODEL:NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from server.cli.configuration import settings_from
from server.cli.models import AsJson, ModelName
from server.cli.terminal import print_json, print_line, print_table

if TYPE_CHECKING:
    from server.cli.daemon import Daemon

Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is asked for by, after the model and a colon.")]
Tuned = Annotated[str, typer.Argument(metavar="TUNED", help="A tuned version that has an adapter.")]


def commands() -> typer.Typer:
    group = typer.Typer(help="LoRA adapters, served side by side on one loaded model.", no_args_is_help=True)
    group.command("list")(list_adapters)
    group.command("attach")(attach)
    group.command("detach")(detach)
    return group


def list_adapters(model: ModelName, as_json: AsJson = False) -> None:
    """List a model's adapters."""
    with _daemon() as daemon:
        found = daemon.call("GET", _path(model))["data"]
    if as_json:
        print_json(found)
    elif found:
        print_table(("NAME", "SERVED ON", "ADAPTER OF"), [(each["id"], each["base"], each["adapter"]) for each in found])
    else:
        print_line(f"{model} has no adapters; `slmops adapters attach {model} NAME TUNED` serves one")


def attach(model: ModelName, name: Name, tuned: Tuned) -> None:
    """Serve the adapter of a tuned version as MODEL:NAME; requests that run lose nothing."""
    with _daemon() as daemon:
        made = daemon.call("POST", _path(model), {"name": name, "adapter": tuned})
    print_line(f"{made['id']} is served on {made['base']}; try: slmops run -m {made['id']} Hello")


def detach(model: ModelName, name: Name) -> None:
    """Serve an adapter no longer."""
    with _daemon() as daemon:
        gone = daemon.call("DELETE", f"{_path(model)}/{quote(name, safe='')}")
    print_line(f"{gone['id']} is served no longer")


def _daemon() -> Daemon:
    from server.cli.daemon import Daemon

    return Daemon.configured(settings_from())


def _path(model: str) -> str:
    return f"/admin/models/{quote(model, safe='')}/adapters"
