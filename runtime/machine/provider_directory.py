"""The execution providers of this machine, queried once per daemon.

Owns the child that queries them; decides nothing about placement.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import psutil

from runtime.machine.child_environment import child_environment
from runtime.machine.discovery import RawDiscovery
from runtime.machine.execution_provider import ExecutionProvider, cpu_provider
from runtime.machine.provider_reading import read_discovery

log = logging.getLogger("slmops.providers")

TIMEOUT_S = 15.0
_CHILD = (sys.executable, "-P", "-m", "runtime.machine.providers")


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """providers: the CPU first. problem: why it is the only one that is known, for people; None when the discovery worked."""

    providers: tuple[ExecutionProvider, ...]
    problem: str | None = None


class ProviderDirectory:
    """Belongs to one event loop. However many callers there are, one child runs at a time, and its answer is kept until `refresh`.

    child: a command that prints a RawDiscovery as JSON. A child that hangs, crashes or prints something else leaves the CPU.
    """

    def __init__(self, child: Sequence[str] = _CHILD, timeout_s: float = TIMEOUT_S) -> None:
        self._child = child
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._report: ProviderReport | None = None
        self._num_begun = 0  # discoveries, which the lock makes one at a time

    async def providers(self) -> tuple[ExecutionProvider, ...]:
        return (await self.report()).providers

    async def report(self) -> ProviderReport:
        async with self._lock:
            if self._report is None:
                self._report = await self._discover()
            return self._report

    async def refresh(self) -> ProviderReport:
        """Queries again; software and drivers may have been installed since.

        Callers that wait for one child share the next one's answer.
        """
        num_begun = self._num_begun
        async with self._lock:
            if self._report is None or self._num_begun == num_begun:
                self._report = await self._discover()
            return self._report

    async def _discover(self) -> ProviderReport:
        self._num_begun += 1
        try:
            answer = await self._query_machine()
            return ProviderReport(read_discovery(msgspec.json.decode(answer, type=RawDiscovery)))
        except _Unanswered as error:
            problem = str(error)
        except msgspec.DecodeError as error:
            problem = f"the discovery of execution providers printed something else than its answer ({error})"
        problem += "; only the CPU is used. Run `slmops doctor`, or remove the plugin provider that was installed last."
        log.warning("%s", problem)
        return ProviderReport((await asyncio.to_thread(this_cpu),), problem)

    async def _query_machine(self) -> bytes:
        """What the child printed. Raises _Unanswered."""
        process = await asyncio.create_subprocess_exec(
            *self._child,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(),
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                printed, complaints = await process.communicate()
        except TimeoutError:
            raise _Unanswered(f"the discovery of execution providers did not end within {self._timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        if process.returncode != 0:
            raise _Unanswered(f"the discovery of execution providers ended with code {process.returncode}{_last_line(complaints)}")
        return printed


class _Unanswered(Exception):
    """The child gave no answer; the message says how it ended."""


def this_cpu() -> ExecutionProvider:
    """The provider that needs no query."""
    return cpu_provider(platform.processor() or platform.machine(), psutil.virtual_memory().total, engines=("onnx",))


def _last_line(complaints: bytes) -> str:
    lines = complaints.decode(errors="replace").strip().splitlines()
    return f" ({lines[-1][:300]})" if lines else ""
