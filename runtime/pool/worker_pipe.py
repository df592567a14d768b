"""A worker's process and the frames on its standard input and output. Knows how to start, write, read and end; decides nothing."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import msgspec

from runtime.machine.child_environment import child_environment
from runtime.protocol.framing import HEADER_BYTES, BrokenFrame, Encoder, body_size
from runtime.protocol.messages import FromWorker, ToWorker

LINGER_S = 5.0  # between the end of what a worker sends and the end of its process
_READ_AHEAD_BYTES = 1 << 20
_DECODER = msgspec.msgpack.Decoder(FromWorker)


class WorkerPipe:
    """Wraps a process whose standard input and output are pipes. All methods belong to one event loop."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._encoder = Encoder()

    @classmethod
    async def open(cls, *, quiet: bool = False) -> WorkerPipe:
        """Starts a worker's process. quiet: discards its standard error.

        Raises OSError. Where it is cancelled, the process is ended before the cancellation goes on.
        """
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # not from the folder that the daemon was started in
                "-m",
                "runtime.worker.main",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL if quiet else None,
                env=child_environment(),
                limit=_READ_AHEAD_BYTES,
            )
        )
        try:
            return cls(await asyncio.shield(starting))
        except asyncio.CancelledError:
            await cls(await starting).end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: negative for a signal; None while the process runs."""
        return self._process.returncode

    def send(self, message: ToWorker) -> None:
        """Writes a message; does nothing when the pipe is closed, which `receive` reports.

        Raises OverflowError, RecursionError, UnicodeEncodeError or BrokenFrame for what no frame can hold; nothing is sent then.
        """
        frame = self._encoder.frame(message)
        if not self._stdin.is_closing():
            self._stdin.write(frame)

    async def receive(self) -> FromWorker:
        """The next message. Raises EOFError when the process has closed its output, BrokenFrame when it wrote something else."""
        try:
            size = body_size(await self._stdout.readexactly(HEADER_BYTES))
            message: FromWorker = _DECODER.decode(await self._stdout.readexactly(size))
        except ConnectionError as error:
            raise EOFError from error
        except msgspec.DecodeError as error:
            raise BrokenFrame(str(error)) from error
        return message

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> None:
        """Waits until the process is gone; one that lingers for LINGER_S is killed."""
        try:
            async with asyncio.timeout(LINGER_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def close(self) -> None:
        """Closes the pipes, so that the loop may close too. Only after `wait`, and when nobody is in `receive`."""
        with suppress(ConnectionError):
            await self._stdout.read()
        self._stdin.close()
        with suppress(ConnectionError):
            await self._stdin.wait_closed()

    async def end(self) -> None:
        """Kills the process and releases what it held."""
        self.kill()
        await self.wait()
        await self.close()
