"""The daemon's end of a job's process: starts it, exchanges messages with it, ends it. Knows nothing of what becomes of the job."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from jobs.messages import FromChild, Start, Stop, ToChild
from jobs.task import JobKind, StopReason
from model_registry.disk import make_private_folder, open_private, storage_errors
from runtime.machine.child_environment import child_environment
from runtime.protocol.framing import HEADER_BYTES, BrokenFrame, Encoder, body_size

_PLAN_ENVIRONMENT = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")
} | {  # of a plan: each thread's stack takes memory
    "ARROW_DEFAULT_MEMORY_POOL": "system"  # Arrow's own pool reserves 1 GiB
}
_DECODER: msgspec.msgpack.Decoder[FromChild] = msgspec.msgpack.Decoder(FromChild)


_FETCHING = frozenset({JobKind.CONVERT, JobKind.MERGE, JobKind.QUANTIZE, JobKind.FINETUNE, JobKind.DISTIL, JobKind.PULL})


def _fetches(start: Start) -> bool:
    """Whether it may have to download a model's source; plans never do, and code that arrived as data gets no token."""
    return start.kind in _FETCHING and not (start.plan or start.offline)


class ChildProcess:
    """One process. Read `messages` to their end, then `wait`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._encoder = Encoder()

    @classmethod
    async def start(cls, start: Start, log: Path, tasks: str) -> ChildProcess:
        """log: what the process prints is appended to it. tasks: the module that knows the kinds of tasks.

        Raises OSError, OutOfDisk, NotWritable.
        """
        process = await _uninterrupted(_spawned(tasks, log, start))
        child = cls(process)
        child._send(start)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    async def messages(self) -> AsyncIterator[FromChild]:
        """Yields messages until the process closes its end. A process that writes anything but frames is killed."""
        assert self._process.stdout is not None
        try:
            while True:
                size = body_size(await self._process.stdout.readexactly(HEADER_BYTES))
                yield _DECODER.decode(await self._process.stdout.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the process has ended; `wait` returns how
        except (BrokenFrame, msgspec.DecodeError):
            self.kill()

    def stop(self, reason: StopReason) -> None:
        self._send(Stop(reason=str(reason)))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> int:
        """The exit code, negative for a signal, once the process is gone and its pipes are closed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        code = await self._process.wait()
        await self._process.stdout.read()
        self._process.stdin.close()
        with suppress(ConnectionError):
            await self._process.stdin.wait_closed()
        return code

    def _send(self, message: ToChild) -> None:
        assert self._process.stdin is not None
        if not self._process.stdin.is_closing():
            self._process.stdin.write(self._encoder.frame(message))


def _open_log(log: Path) -> IO[bytes]:
    make_private_folder(log.parent)
    with storage_errors(log.parent, 1 << 12, "writing a job's log"):
        return open_private(log, "ab")


async def _spawned(tasks: str, log: Path, start: Start) -> asyncio.subprocess.Process:
    stderr = await asyncio.to_thread(_open_log, log)
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "jobs.child",
            tasks,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env=child_environment(network=bool(start.grants.endpoints), fetches=_fetches(start))
            | (_PLAN_ENVIRONMENT if start.plan else {}),
            limit=1 << 20,
        )
    finally:
        stderr.close()


async def _uninterrupted(spawning: Coroutine[Any, Any, asyncio.subprocess.Process]) -> asyncio.subprocess.Process:
    """When cancelled, it ends the process that is being started, which would leak otherwise."""
    task = asyncio.ensure_future(spawning)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        process = await task
        process.kill()
        await process.wait()
        raise
