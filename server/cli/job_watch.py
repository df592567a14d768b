"""A job's progress in the terminal: a bar, figures and the loss curve; plain lines where there is no terminal."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from server.cli.terminal import amount, console, print_line, span
from server.logs import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from server.cli.daemon import Daemon


_BLOCKS = " ▁▂▃▄▅▆▇█"


def curve(values: Sequence[float], width: int = 60, height: int = 8) -> list[str]:
    """height lines, the highest first, each with the value that its upper edge means. values: in order, at least one."""
    points = _fitted(values, width)
    low, high = min(points), max(points)
    reach = (high - low) or 1.0
    eighths = [1 + round((value - low) / reach * (8 * height - 1)) for value in points]
    lines = []
    for row in range(height, 0, -1):
        cells = "".join(_BLOCKS[max(0, min(8, each - 8 * (row - 1)))] for each in eighths)
        lines.append(f"{low + reach * row / height:>10.4g} ┤{cells}")
    return lines


def _fitted(values: Sequence[float], width: int) -> list[float]:
    """The curve as at most `width` points, which are means of neighbours."""
    count = min(width, len(values))
    borders = [index * len(values) // count for index in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(borders)]


_CURVE = "loss"
_PLAIN_EVERY_S = 10.0


def watch_job(daemon: Daemon, job: str, step: str = "") -> dict[str, Any]:
    """Watches a job until it has ended. Returns it as it is then. step: which one of a pipeline it is, in words."""
    shown = _Screen(step) if console().is_terminal else _Lines(step)
    with shown:
        for event in daemon.job_events(job):
            shown.show(event)
    return daemon.call("GET", f"/admin/jobs/{quote(job, safe='')}")


class _View(AbstractContextManager["_View"]):
    @abstractmethod
    def show(self, event: dict[str, Any]) -> None: ...

    def __exit__(self, *exc: object) -> None:
        return None


class _Lines(_View):
    """One line for what happens, and for the progress now and then."""

    def __init__(self, step: str = "") -> None:
        self._step = step
        self._last_print_s = 0.0

    def __enter__(self) -> _View:
        if self._step:
            print_line(self._step)
        return self

    def show(self, event: dict[str, Any]) -> None:
        if event["type"] == "stage":
            print_line(f"stage: {_numbered(event)}")
        elif event["type"] != "progress":
            print_line(f"{event['type']}: {event['message']}")
        elif time.monotonic() - self._last_print_s >= _PLAIN_EVERY_S:
            self._last_print_s = time.monotonic()
            print_line(f"progress: {_figures(event['data'])}")


class _Screen(_View):
    """The newest state, redrawn when it changes; messages stay above it."""

    def __init__(self, step: str = "") -> None:
        from rich.live import Live

        self._step = step
        self._stage = "queued"
        self._data: dict[str, Any] = {}
        self._values: list[float] = []
        self._begun = time.monotonic()
        self._live = Live(console=console(), get_renderable=self._drawn, refresh_per_second=4, transient=True)

    def __enter__(self) -> _View:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def show(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "stage":
                self._stage, self._data = _numbered(event), {}
            case "progress":
                self._data = event["data"]
                value = self._data["metrics"].get(_CURVE)
                self._values += [] if value is None else [value]
            case _:
                self._live.console.print(visible(event["message"], keep="\n"), markup=False, highlight=False)

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        heading = [self._step, self._stage, span(time.monotonic() - self._begun)]
        parts: list[RenderableType] = [Text(" · ".join(filter(None, heading)), "bold")]
        if self._data.get("total"):
            bar = Table.grid()  # a line of its own, which a bar alone does not end
            bar.add_row(ProgressBar(total=self._data["total"], completed=self._data["step"], width=72))
            parts.append(bar)
        if self._data:
            parts.append(Text(_figures(self._data)))
        if len(self._values) > 1:
            parts += [Text(line, "cyan") for line in curve(self._values)]
        return Group(*parts)


def _numbered(event: dict[str, Any]) -> str:
    """`2 of 5: training`. event: the beginning of a stage."""
    data = event["data"]
    return f"{data['number']} of {data['total']}: {event['message']}" if data.get("number") else str(event["message"])


def _figures(data: dict[str, Any]) -> str:
    """`12 of 200 steps · 4 min left · loss 1.93 · learning_rate 2e-05`."""
    done = [amount(data["step"], data["total"], data["unit"])]
    done += [f"{span(left_s)} left"] if (left_s := data.get("time_left_s")) else []
    return " · ".join([*done, *(f"{name} {value:.4g}" for name, value in data["metrics"].items() if value is not None)])
