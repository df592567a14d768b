"""Wire protocol between the daemon and a job's process: small frozen messages, framed by `runtime/protocol/framing.py`.

To the process:    Start, then Stop.
From the process:  Staged, Progressed, LogMessage, Checkpointed; last, one of Planned, Refused, Finished, Failed, Ended.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jobs.permissions import Grants
from jobs.task import Outcome, Plan, Problem
from model_registry.disk_space.limits import NO_LIMITS, DiskLimits


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """The first message. plan: plan the job instead of running it.

    memory_bytes: that the job may take, None if unlimited; plan_memory_bytes: that the process may take which only plans.
    disk: how much of it the home may take; disk_bytes: what the job writes, as its plan says. grants: what the configuration
    allows, with the keys of endpoints, which stand nowhere else.
    """

    job: str
    kind: str
    params: dict[str, Any]
    home: str
    folder: str
    plan: bool = False
    attempt: int = 1
    threads: int = 0
    memory_bytes: int | None = None
    offline: bool = False
    grants: Grants = Grants()
    plan_memory_bytes: int | None = None
    disk: DiskLimits = NO_LIMITS
    disk_bytes: int | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """reason: `pause` or `cancel`."""

    reason: str


class Staged(msgspec.Struct, frozen=True, kw_only=True, tag="staged"):
    """number, total: which of the task's stages it is, or is a part of, from 1; None where that is not known."""

    name: str
    number: int | None = None
    total: int | None = None


class Progressed(msgspec.Struct, frozen=True, kw_only=True, tag="progressed"):
    step: int
    total: int | None
    unit: str
    metrics: dict[str, float]


class LogMessage(msgspec.Struct, frozen=True, kw_only=True, tag="log"):
    """text: one event for people. level: info, warning or error."""

    text: str
    level: str


class Checkpointed(msgspec.Struct, frozen=True, kw_only=True, tag="checkpointed"):
    """path: in the job's folder, relative."""

    step: int
    path: str
    metrics: dict[str, float]


class Planned(msgspec.Struct, frozen=True, kw_only=True, tag="planned"):
    plan: Plan


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    problems: tuple[Problem, ...]


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    outcome: Outcome


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    code: str
    message: str
    retryable: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The task stopped as it was requested to."""


ToChild = Start | Stop
TerminalMessage = Planned | Refused | Finished | Failed | Ended
FromChild = Staged | Progressed | LogMessage | Checkpointed | TerminalMessage
