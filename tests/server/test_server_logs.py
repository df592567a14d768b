"""The latest lines of the log over HTTP: what is kept, in which order, and who may read it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest

from server.app import create_app
from server.log_buffer import LogBuffer
from server.settings.daemon import Settings
from tests.doubles.live_server import call_app, error_of

Make = Callable[..., Settings]


@pytest.fixture
def buffer() -> LogBuffer:
    return LogBuffer(most_lines=3)


def log(buffer: LogBuffer, event: str, **fields: object) -> None:
    record = logging.LogRecord("slmops.test", logging.INFO, __file__, 1, event, None, None)
    record.fields = fields
    buffer.handle(record)


def test_the_latest_lines_are_kept_in_order(buffer: LogBuffer) -> None:
    for number in range(5):
        log(buffer, f"event {number}")
    assert [(entry.number, entry.event) for entry in buffer.after(0, 10)] == [(3, "event 2"), (4, "event 3"), (5, "event 4")]
    assert [entry.number for entry in buffer.after(0, 1)] == [5]
    assert [entry.number for entry in buffer.after(4, 10)] == [5]
    assert buffer.after(5, 10) == []


def test_values_that_json_has_not_are_texts(buffer: LogBuffer) -> None:
    log(buffer, "event", path=object, share=float("nan"), names=("a", 1), ok=True, none=None)
    (entry,) = buffer.after(0, 1)
    assert json.loads(json.dumps(dict(entry.fields), allow_nan=False)) == {
        "path": str(object),
        "share": "nan",
        "names": ["a", 1],
        "ok": True,
        "none": None,
    }


def test_lines_are_read_over_http_by_admins(make_settings: Make, buffer: LogBuffer) -> None:
    log(buffer, "started", port=8000)
    app = create_app(make_settings(api_key="k"), log_buffer=buffer)
    error_of(call_app(app, "GET", "/admin/logs"), 401)
    (line,) = call_app(app, "GET", "/admin/logs", headers={"Authorization": "Bearer k"}).json()["data"]
    assert (line["number"], line["level"], line["event"], line["fields"]) == (1, "info", "started", {"port": 8000})


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=2001", "after=x"])
def test_bounds_of_the_query(make_settings: Make, query: str) -> None:
    assert error_of(call_app(create_app(make_settings()), "GET", f"/admin/logs?{query}"), 400)["param"] == query.partition("=")[0]


def test_reading_the_log_does_not_fill_it(make_settings: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "slmops.access"):
        call_app(create_app(make_settings()), "GET", "/admin/logs")
    assert [record for record in caplog.records if record.name == "slmops.access"] == []
