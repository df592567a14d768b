"""Chunks as bytes: filled templates equal chunks rendered whole, whatever the text; and the log lines."""

from __future__ import annotations

import io
import json
import logging
from contextlib import redirect_stderr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.events import Chunk, Finished, FinishReason, Started, Timings, Usage
from runtime.text.formats.reader import AnswerParser
from server.dialects.openai.chat_frames import ChatFrames, ChatStyle
from server.dialects.openai.completion_frames import CompletionFrames, CompletionStyle
from server.dialects.openai.rendering import MARK, ChunkTemplate, Identity, event_of
from server.dialects.openai.wire.chat import ChatChunk, ChatChunkChoice, Delta
from server.dialects.openai.wire.sampling import UsageReporting
from server.inference.inference import Indexed, total
from server.inference.resolution import Resolution, ServedModel
from server.logs import JsonFormatter, TextFormatter, configure, visible

pytestmark = pytest.mark.unit

MODEL = Resolution("m", ServedModel("m:1", 0), "test")
IDENTITY = Identity.new("chatcmpl", MODEL)


STARTED = Started(request=1, prompt_tokens=3, cached_tokens=1)


class Begun:
    """Choices that have begun, in a model that writes plain text."""

    def started(self, choice: int) -> Started:
        return STARTED

    def parser(self, choice: int) -> AnswerParser | None:
        return None


def chat_frames(style: ChatStyle | None = None) -> ChatFrames:
    """The frames of a choice whose role was sent."""
    frames = ChatFrames(IDENTITY, Begun(), style or ChatStyle())
    frames.event(Indexed(0, Chunk(1, "", [])))
    return frames


def finished(text: str = "") -> Finished:
    return Finished(
        request=1,
        reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1),
        timings=Timings(queue_s=0, prefill_s=0, decode_s=0),
        text=text,
    )


def parsed(frames: bytes) -> list[object]:
    assert frames.endswith(b"\n\n")
    payloads = [event.removeprefix("data: ") for event in frames.decode().removesuffix("\n\n").split("\n\n")]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


@given(st.text())
def test_a_filled_template_equals_the_chunk_rendered_whole(text: str) -> None:
    def chunk(content: str) -> ChatChunk:
        choice = ChatChunkChoice(index=0, delta=Delta(content=content))
        return ChatChunk(id="i", created=1, model=MARK, system_fingerprint="f", choices=[choice])

    filled = ChunkTemplate(chunk(MARK), with_usage=True).fill(text)
    assert parsed(filled) == parsed(event_of(chunk(text), with_usage=True))


def test_a_template_needs_its_mark() -> None:
    with pytest.raises(ValueError, match="MARK"):
        ChunkTemplate(ChatChunk(id="i", created=1, model="m", system_fingerprint="f", choices=[]), with_usage=False)


def test_an_event_without_text_is_not_sent() -> None:
    assert chat_frames().event(Indexed(0, Chunk(1, "", [5]))) == b""


def test_text_that_comes_with_the_end_is_sent_before_it() -> None:
    text, end = parsed(chat_frames().event(Indexed(0, finished("rest"))))
    assert text["choices"][0]["delta"] == {"content": "rest"}
    assert end["choices"][0]["finish_reason"] == "stop"


def test_usage_of_all_choices_is_summed() -> None:
    frames = CompletionFrames(IDENTITY, Begun().started, CompletionStyle(usage=UsageReporting.LAST))
    frames.event(Indexed(0, finished()))
    frames.event(Indexed(1, finished()))
    usage, done = parsed(frames.closing())
    assert usage["usage"]["total_tokens"] == 10
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 2, "audio_tokens": 0}
    assert done == "[DONE]"


def test_the_total_of_nothing() -> None:
    assert total([]) == Usage(prompt_tokens=0, completion_tokens=0)


def test_lines_go_where_standard_error_is_at_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    earlier, later = io.StringIO(), io.StringIO()
    with redirect_stderr(earlier):
        configure("warning", "text")
    earlier.close()
    with redirect_stderr(later):
        logging.getLogger("slmops.test").warning("event")
    assert later.getvalue().endswith("WARNING event\n")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_logged_exception_shows_where_but_not_what(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("the user's secret")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("slmops.x", logging.ERROR, "f.py", 1, "it failed", (), info)
    record.fields = {"request_id": "r"}
    line = formatter.format(record)
    assert "secret" not in line
    assert "ValueError" in line
    assert "test_server_rendering.py" in line
    assert "it failed" in line


def _record(event: str, **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("slmops.x", logging.INFO, "f.py", 1, event, (), None)
    record.fields = fields
    return record


_HOSTILE = "a\x1b[2J\r\n12:00:00 INFO forged\x9b1m\u202egnp\u2028\x7f\x00"


def test_values_stay_on_their_line_of_a_text_log() -> None:
    line = TextFormatter().format(_record(f"no model {_HOSTILE}", path=_HOSTILE, names=[_HOSTILE]))
    assert line.isprintable()
    assert "\\x1b[2J\\x0d\\x0a12:00:00 INFO forged\\u009b1m\\u202egnp\\u2028\\u007f\\x00" in line


@pytest.mark.parametrize("value", [_HOSTILE, float("nan"), float("inf"), b"\xff", {"a": float("nan")}, {1, 2}, None, "\ud800"])
def test_a_line_of_a_json_log_is_json(value: object) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("NaN is no JSON")

    line = JsonFormatter().format(_record("event", value=value))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line, parse_constant=refuse)["event"] == "event"


@given(st.text())
def test_visible_text_is_one_printable_line(text: str) -> None:
    shown = visible(text)
    assert not set(shown) & {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x202E)}
    assert json.loads(visible(json.dumps(text, ensure_ascii=False, indent=1), keep="\n")) == text
    assert visible(text, keep=text) == text
