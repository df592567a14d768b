"""`slmops ps` and `slmops stop`: the models that a running daemon has in memory."""

from __future__ import annotations

import time
from typing import Any

from server.cli.configuration import settings_from
from server.cli.models import AsJson, ModelName
from server.cli.terminal import print_json, print_line, print_table, size, span


def loaded_models(as_json: AsJson = False) -> None:
    """List the loaded models: provider, memory, busy slots, idle since."""
    from server.cli.daemon import Daemon

    with Daemon.configured(settings_from()) as daemon:
        rows = daemon.require().loaded()
    if as_json:
        print_json(rows)
        return
    if not rows:
        print_line("no model is loaded; the first request loads one")
        return
    columns = ("MODEL", "STATE", "PROVIDER", "MEMORY>", "SLOTS BUSY>", "WAITING>", "RESTARTS>", "IDLE")
    print_table(columns, [_row(row, time.time()) for row in rows])


def _row(row: dict[str, Any], now: float) -> tuple[str, ...]:
    idle_since = row["idle_since"]
    return (
        str(row["id"]),
        str(row["state"]),
        str(row["provider"] or "-"),
        size(row["resident_bytes"]) if row["resident_bytes"] else "-",
        f"{row['num_running']}/{row['num_slots']}",
        str(row["num_waiting"]),
        str(row["num_restarts"]),
        f"for {span(now - idle_since)}" if idle_since else "busy",
    )


def stop(model: ModelName, as_json: AsJson = False) -> None:
    """Unload a model from the running daemon; its running answers are ended. The next request loads it again."""
    from server.cli.daemon import Daemon

    with Daemon.configured(settings_from()) as daemon:
        outcome = daemon.require().unload(model)
    if as_json:
        print_json(outcome)
    else:
        print_line(f"{model} is unloaded")
