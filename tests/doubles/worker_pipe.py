"""A worker process at the end of a pipe, sent messages by hand."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import msgspec

from runtime.protocol.framing import Encoder, read_frame
from runtime.protocol.messages import Drain, EngineOptions, FromWorker, Load, Submit
from runtime.protocol.request import ChatPrompt

ROOT = Path(__file__).parents[2]
WORKER = ["-m", "runtime.worker.main"]
LOAD = Load(engine="fake", folder="", options=EngineOptions(num_slots=2))


def chat_request(text: str, number: int = 1) -> Submit:
    return Submit(request=number, prompt=ChatPrompt(messages=[{"role": "user", "content": text}]))


def start_worker(program: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run_worker(program: list[str], *messages: object) -> tuple[list[FromWorker], bytes, int]:
    """A worker's messages in reply to these, its other output, and its exit code. Without a Drain, its input ends."""
    encoder = Encoder()
    worker = start_worker(program)
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(b"".join(encoder.frame(message) for message in messages))
    worker.stdin.flush()
    output = worker.stdout.read() if any(isinstance(message, Drain) for message in messages) else b""
    rest, printed = worker.communicate(timeout=30)
    output += rest
    received, stream = [], io.BytesIO(output)
    while (body := read_frame(stream)) is not None:
        received.append(msgspec.msgpack.decode(body, type=FromWorker))
    assert stream.tell() == len(output)
    return received, printed, worker.returncode
