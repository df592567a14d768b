"""The process in which a worker runs what others wrote as programs, under limits of the system: chat templates and grammars.

    python -m runtime.text.preparation_child [SECONDS]

A chat template comes with a model; it may loop, recurse, or double a text until memory ends. A schema comes with a request; the
time to compile it may grow exponentially with its size. So both run here first. Each message may compute for `COMPUTE_S`, after
which the kernel ends the process (ITIMER_PROF, whose default action needs no cooperation of the interpreter or of a library); and
the process may hold `MEMORY_BYTES` (RLIMIT_DATA), beyond which Python raises MemoryError and libraries abort. Frames on standard
input and output, as in the worker's own protocol; each message has one reply. The process ends with its input. Windows has neither
limit, and macOS enforces none on memory: there the watchdog alone bounds the time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.framing import FrameWriter, read_frame
from runtime.protocol.request import ChatPrompt
from runtime.text.chat_template import ChatTemplate
from runtime.text.constraints.lark import complaint

if sys.platform != "win32":
    import resource

COMPUTE_S = 5.0  # of one message, all threads together; 8 MB of messages take a usual template 0.8 s
MEMORY_BYTES = 512 << 20  # 8 MB of messages take 160 MB


class CompileTemplate(msgspec.Struct, frozen=True, kw_only=True, tag="compile_template"):
    """source: Jinja. special_tokens: `bos_token`, `eos_token`... as the template may name them. Answered by Compiled."""

    source: str
    special_tokens: dict[str, str]


class Render(msgspec.Struct, frozen=True, kw_only=True, tag="render"):
    """Renders a prompt by the template of the last CompileTemplate. Answered by Rendered or Refused."""

    prompt: ChatPrompt


class TryGrammar(msgspec.Struct, frozen=True, kw_only=True, tag="try_grammar"):
    """lark: in llguidance's dialect, with marks of `constraints.lark.token`. Answered by Compiled."""

    lark: str


class Compiled(msgspec.Struct, frozen=True, kw_only=True, tag="compiled"):
    """error: why it does not compile; None: it does."""

    error: str | None = None


class Rendered(msgspec.Struct, frozen=True, kw_only=True, tag="rendered"):
    text: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """The fields of an InvalidRequest."""

    message: str
    field: Field | None
    code: str | None


Request = CompileTemplate | Render | TryGrammar
Reply = Compiled | Rendered | Refused
_DECODER = msgspec.msgpack.Decoder(Request)


class Renderer:
    """Knows the last template."""

    def __init__(self) -> None:
        self._template: ChatTemplate | None = None

    def reply(self, request: Request) -> Reply:
        match request:
            case CompileTemplate(source=source, special_tokens=special):
                return self._compile(source, special)
            case Render(prompt=prompt):
                return self._render(prompt)
            case TryGrammar(lark=lark):
                return Compiled(error=complaint(lark))

    def _compile(self, source: str, special_tokens: dict[str, str]) -> Compiled:
        try:
            self._template = ChatTemplate(source, special_tokens)
        except ValueError as error:
            return Compiled(error=str(error))
        return Compiled()

    def _render(self, prompt: ChatPrompt) -> Rendered | Refused:
        assert self._template is not None
        try:
            return Rendered(text=self._template.render(prompt))
        except InvalidRequest as refusal:
            return Refused(message=refusal.message, field=refusal.field, code=refusal.code)


@contextmanager
def _limited(compute_s: float) -> Iterator[None]:
    """What is computed within takes so long at most, or the process ends by SIGPROF."""
    if sys.platform == "win32":
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, compute_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def _set_limit(kind: int, value: int) -> None:
    """Or what the process was started with, where that is less."""
    if sys.platform != "win32":
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def main(compute_s: float = COMPUTE_S) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group; the worker decides what ends
        signal.signal(number, signal.SIG_IGN)
    replies = FrameWriter(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    if sys.platform != "win32":
        _set_limit(resource.RLIMIT_DATA, MEMORY_BYTES)
        _set_limit(resource.RLIMIT_CORE, 0)  # its end by a signal is ordinary
    renderer = Renderer()
    while (body := read_frame(sys.stdin.buffer)) is not None:
        with _limited(compute_s):
            reply = renderer.reply(_DECODER.decode(body))
        replies.write(reply)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
