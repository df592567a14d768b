"""`slmops ps`, `load`, `reload`, `stop`, `reset` and `adapters`: the models that a running daemon has in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed
from server.cli.missing_model import Yes, ensure_installed
from server.cli.models import AsJson, ModelName
from server.cli.terminal import Wide, print_json, print_line, print_table, size, span

if TYPE_CHECKING:
    from server.cli.daemon import Daemon


KeepAlive = Annotated[str | None, typer.Option(help="How long it stays without requests: 30m, 1h; -1 for ever.")]
Pin = Annotated[bool | None, typer.Option("--pin/--unpin", help="Keep it loaded whatever happens.")]

_COLUMNS = ("MODEL", "STATE", "RUNS ON", "MEMORY>", "THREADS>", "BUSY>", "QUEUE>", "LEAVES")  # 80 characters wide
_LEAST = ("THREADS", "QUEUE", "LEAVES", "BUSY", "RUNS ON")


def loaded_models(as_json: AsJson = False, wide: Wide = False) -> None:
    """List the loaded models: where each runs, its memory, threads, busy slots and queue, and when it leaves."""
    from server.cli.daemon import Daemon

    with Daemon.configured(settings_from()) as daemon:
        pool = daemon.require().pool()
        disk = _disk_warnings(daemon)
    if as_json:
        print_json(pool["data"])
        return
    if pool["data"]:
        print_table(_COLUMNS, [_row(row, time.time()) for row in pool["data"]], least=_LEAST, wide=wide)
        print_line("")
    elif not pool["broken"]:
        print_line("no model is loaded; the first request loads one")
    remarks = _remarks(pool) if pool["data"] or pool["broken"] else ()
    for line in (*remarks, *disk):
        print_line(line)


def _disk_warnings(daemon: Daemon) -> list[str]:
    """What is nearly full; nothing from a daemon that does not say it."""
    try:
        return list(daemon.call("GET", "/admin/registry/disk")["warnings"])
    except CommandFailed:
        return []


def _row(row: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        str(row["id"]) + (f" x{len(row['replicas'])}" if len(row["replicas"]) > 1 else ""),
        str(row["state"]),
        _runs_on(row),
        size(row["resident_bytes"]) if row["resident_bytes"] else "-",
        str(row["threads"] or "-"),
        f"{row['num_running']}/{row['num_slots']}",
        str(row["num_waiting"]),
        _leaves(row, now),
    )


def _runs_on(row: dict[str, Any]) -> str:
    return f"{row['engine']}/{str(row['provider'] or '-').removesuffix('ExecutionProvider')}" if row["engine"] else "-"


def _leaves(row: dict[str, Any], now: float) -> str:
    if row["pinned"]:
        return "pinned"
    if row["expires_at"]:
        return f"in {span(row['expires_at'] - now)}"
    return "never" if row["idle_since"] else "busy"


def _remarks(pool: dict[str, Any]) -> Iterator[str]:
    """What stands below the table. A daemon of an earlier release reports neither capabilities nor unused builds."""
    for row in pool["data"]:
        if row["chat_template_error"]:
            yield f"{row['id']} cannot chat: {row['chat_template_error']}"
        if "capabilities" in row:
            yield f"{row['id']} supports {', '.join(row['capabilities']) or 'nothing'}"
        for fallback in row["fallbacks"]:
            yield f"{row['id']}: {fallback['variant'] or 'it'} could not be loaded by {fallback['provider']} ({fallback['why']})"
        for unused in row.get("unused", ()):
            yield f"{row['id']}: {unused['variant']} is not used ({unused['provider']}: {unused['why']})"
        if row["num_restarts"]:
            yield f"{row['id']}: restarted {row['num_restarts']} times"
    yield from (broken["why"] for broken in pool["broken"])
    if pool["waiting"]:
        yield f"waiting for room: {', '.join(pool['waiting'])}"
    yield f"of the memory budget of {size(pool['memory_budget_bytes'])}, {size(pool['memory_charged_bytes'])} are charged"


def load(model: ModelName, keep_alive: KeepAlive = None, pin: Pin = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Load a model into the running daemon, and set how long it stays. A missing model is pulled first, after a question."""
    from server.cli.daemon import Daemon
    from server.cli.model_names import names_at

    settings = settings_from()
    with Daemon.configured(settings) as daemon:
        model = ensure_installed(model, names_at(daemon.require()), settings, assume_yes=yes)
    loaded = _manage(model, "load", {"keep_alive": keep_alive, "pin": pin})
    _print(loaded, f"{loaded['id']} is loaded: {_runs_on(loaded)}, {_stays(loaded)}", as_json)


def _stays(row: dict[str, Any]) -> str:
    if row["pinned"]:
        return "pinned"
    return "kept for ever" if row["keep_alive_s"] < 0 else f"kept for {span(row['keep_alive_s'])} after each request"


def reload(
    model: ModelName,
    keep_alive: KeepAlive = None,
    pin: Pin = None,
    engine: Annotated[str | None, typer.Option(help="auto, onnx, genai or foundry.")] = None,
    providers: Annotated[str | None, typer.Option(help="A policy, or providers in order: cuda,cpu.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Workers.")] = None,
    num_slots: Annotated[int | None, typer.Option(help="Sequences decoded together, per worker.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads per worker; 0: a share of the cores.")] = None,
    context_length: Annotated[int | None, typer.Option(help="Maximum context length, in tokens.")] = None,
    as_json: AsJson = False,
) -> None:
    """Reload a model with other settings, until the daemon ends; no request fails meanwhile."""
    changes = {
        "keep_alive": keep_alive,
        "pin": pin,
        "engine": engine,
        "providers": providers,
        "replicas": replicas,
        "num_slots": num_slots,
        "threads": threads,
        "context_length": context_length,
    }
    loaded = _manage(model, "reload", changes)
    _print(loaded, f"{loaded['id']} is reloaded: {_runs_on(loaded)}, {_stays(loaded)}", as_json)


def stop(
    model: ModelName,
    grace_s: Annotated[float, typer.Option(help="Seconds that running answers get to finish.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Unload a model from the running daemon; its running answers are ended. The next request loads it again."""
    _print(_manage(model, "unload", {"grace_s": grace_s}), f"{model} is unloaded", as_json)


def reset(model: ModelName, as_json: AsJson = False) -> None:
    """Try a model again that failed repeatedly: forget its failures."""
    _print(_manage(model, "reset", {}), f"{model} will be tried again", as_json)


def _manage(model: str, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    from server.cli.daemon import Daemon

    given = {name: value for name, value in body.items() if value is not None}
    with Daemon.configured(settings_from()) as daemon:
        return daemon.require().manage(model, verb, given or None)


def _print(outcome: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
    else:
        print_line(line)


Name = Annotated[str, typer.Argument(metavar="NAME", help="The name that requests use for it, after the model and a colon.")]
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
    """Stop serving an adapter."""
    with _daemon() as daemon:
        gone = daemon.call("DELETE", f"{_path(model)}/{quote(name, safe='')}")
    print_line(f"stopped serving {gone['id']}")


def _daemon() -> Daemon:
    from server.cli.daemon import Daemon

    return Daemon.configured(settings_from())


def _path(model: str) -> str:
    return f"/admin/models/{quote(model, safe='')}/adapters"
