"""A worker's end of `preparation_child`: chat templates and grammars run there, so that none can take more than its limits.

What exceeds them costs that process and fails one request; the next starts another process. Knows no Jinja and no llguidance.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import BinaryIO, cast

import msgspec

from runtime.machine.child_environment import child_environment
from runtime.protocol.capabilities import lacks_chat
from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.framing import FrameWriter, read_frame
from runtime.protocol.request import ChatPrompt
from runtime.text.preparation_child import (
    COMPUTE_S,
    Compiled,
    CompileTemplate,
    Refused,
    Render,
    Rendered,
    Reply,
    Request,
    TryGrammar,
)

_PROGRAM = ("-P", "-m", "runtime.text.preparation_child")  # -P: nothing is imported from the folder that the daemon was started in
_DECODER = msgspec.msgpack.Decoder(Reply)
_EXIT_S = 5.0  # between the end of its output and the end of the process
_OUT_OF_MEMORY = -getattr(signal, "SIGKILL", 9)


class LimitExceeded(Exception):
    """The process ended while it handled a message.

    The text says how, as a part of a sentence: "it computed for more than 10 s".
    """


class PreparationProcess:
    """One process at a time, started when it is first needed. Thread-safe: messages take turns.

    setup: sent first to each process; one that exceeds its limits is not tried again. compute_s: what a message may compute. The
    process ends with `close`, with this object, or with the caller's own process.
    """

    def __init__(self, setup: Request | None = None, *, compute_s: float = COMPUTE_S) -> None:
        self._setup = setup
        self._compute_s = compute_s
        self._setup_reply: Reply | LimitExceeded | None = None
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def start(self) -> None:
        """Begins the setup, and does not wait for it."""
        with self._lock:
            self._started()

    def setup_reply(self) -> Reply | LimitExceeded:
        """Waits for it."""
        with self._lock:
            if self._setup_reply is None:
                self._set_up()
            assert self._setup_reply is not None
            return self._setup_reply

    def call(self, request: Request) -> Reply:
        """Raises LimitExceeded."""
        with self._lock:
            child = self._set_up()
            child.send(request)
            return self._reply_of(child)

    def close(self) -> None:
        with self._lock:
            if self._child is not None:
                self._child.end()
                self._child = None

    def _started(self) -> _Child:
        if self._child is None:
            self._child = _Child(self._setup, self._compute_s)
        return self._child

    def _set_up(self) -> _Child:
        """A process that has replied to its setup, if it has one."""
        child = self._started()
        if not child.awaits_setup:
            return child
        child.awaits_setup = False
        try:
            self._setup_reply = self._reply_of(child)
        except LimitExceeded as error:
            self._setup, self._setup_reply = None, error
            return self._started()
        return child

    def _reply_of(self, child: _Child) -> Reply:
        reply = child.receive()
        if reply is None:
            self._child = None
            raise LimitExceeded(child.describe_end())
        return reply


class _Child:
    """One process, which is ended when this is dropped."""

    def __init__(self, setup: Request | None, compute_s: float) -> None:
        self._compute_s = compute_s
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, *_PROGRAM, str(compute_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
        )
        self.end = weakref.finalize(self, _end, self._process)
        self._frames = FrameWriter(cast(BinaryIO, self._process.stdin))
        self.awaits_setup = setup is not None
        if setup is not None:
            self.send(setup)

    def send(self, request: Request) -> None:
        with suppress(BrokenPipeError):  # it has ended, as the missing reply will show
            self._frames.write(request)

    def receive(self) -> Reply | None:
        """None: it has ended."""
        body = read_frame(cast(BinaryIO, self._process.stdout))
        return None if body is None else _DECODER.decode(body)

    def describe_end(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)
        self.end()
        code = self._process.returncode
        if sys.platform != "win32" and code == -signal.SIGPROF:
            return f"it computed for more than {self._compute_s:g} s"
        if code in (-signal.SIGABRT, _OUT_OF_MEMORY):
            return "it needed more memory than it may take"
        return f"the process that ran it ended with exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream is not None
        with suppress(BrokenPipeError):
            stream.close()


class ModelPreparation:
    """What a model's requests need of such a process: its chat template, and trials of their grammars. Implements `Template`.

    template None: the model has none, and the process starts with the first grammar. Else it starts at once, and compiles the
    template while the caller continues to load.
    """

    def __init__(self, template: str | None, special_tokens: Mapping[str, str], *, compute_s: float = COMPUTE_S) -> None:
        self._has_template = template is not None
        setup = None if template is None else CompileTemplate(source=template, special_tokens=dict(special_tokens))
        self._process = PreparationProcess(setup, compute_s=compute_s)
        if self._has_template:
            self._process.start()

    @property
    def template_error(self) -> str | None:
        """Why nothing can be rendered, with the template's line; None: it compiles, or there is none. Waits for that."""
        if not self._has_template:
            return None
        reply = self._process.setup_reply()
        if isinstance(reply, LimitExceeded):
            return f"the chat template cannot be compiled: {reply}"
        assert isinstance(reply, Compiled)
        return reply.error

    def render(self, prompt: ChatPrompt) -> str:
        """Like `ChatTemplate.render`; also raises InvalidRequest if the template does not compile or exceeds its limits."""
        if (error := self.template_error) is not None:
            raise lacks_chat(error)
        try:
            reply = self._process.call(Render(prompt=prompt))
        except LimitExceeded as exceeded:
            raise InvalidRequest(
                f"The model's chat template could not be applied to these messages: {exceeded}. Send fewer or shorter messages; if "
                f"it fails for any, the template itself is at fault: send a {Field.PROMPT.quoted}, or use another model.",
                field=Field.CONVERSATION,
                code="chat_template_error",
            ) from None
        if isinstance(reply, Refused):
            raise InvalidRequest(reply.message, field=reply.field, code=reply.code)
        assert isinstance(reply, Rendered)
        return reply.text

    def grammar_complaint(self, lark: str) -> str | None:
        """What is wrong with a grammar, found where a compilation without end does no harm; None: nothing."""
        try:
            reply = self._process.call(TryGrammar(lark=lark))
        except LimitExceeded as error:
            return f"it is too complex to compile ({error})"
        assert isinstance(reply, Compiled)
        return reply.error

    def close(self) -> None:
        self._process.close()
