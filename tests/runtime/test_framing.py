"""Frames survive any content, and a broken stream is noticed instead of waited for."""

from __future__ import annotations

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.protocol.framing import HEADER_BYTES, MAX_FRAME_BYTES, BrokenFrame, Encoder, body_size, read_frame


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_frames_come_back_in_order(bodies: list[bytes]) -> None:
    encoder = Encoder()
    stream = io.BytesIO(b"".join(encoder.frame(body) for body in bodies))
    read = []
    while (body := read_frame(stream)) is not None:
        read.append(msgspec.msgpack.decode(body))
    assert read == bodies


@pytest.mark.parametrize("kept", [0, 1, HEADER_BYTES, HEADER_BYTES + 3])
def test_a_writer_that_died_inside_a_frame_ends_the_stream(kept: int) -> None:
    frame = Encoder().frame("a message")
    assert read_frame(io.BytesIO(frame[:kept])) is None


def test_a_print_on_the_stream_is_refused_at_once() -> None:
    with pytest.raises(BrokenFrame, match="limit"):
        read_frame(io.BytesIO(b"Traceback (most recent call last):"))


def test_the_limit_itself_is_allowed() -> None:
    assert body_size(MAX_FRAME_BYTES.to_bytes(4, "little")) == MAX_FRAME_BYTES
    with pytest.raises(BrokenFrame):
        body_size((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))


def test_a_message_beyond_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.protocol.framing.MAX_FRAME_BYTES", 64)
    encoder = Encoder()
    with pytest.raises(BrokenFrame, match="exceeds the frame limit"):
        encoder.frame("x" * 65)
    assert read_frame(io.BytesIO(encoder.frame("x"))) == b"\xa1x"
