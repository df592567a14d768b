"""What every response of one request repeats: its id, time, model and fingerprint."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from server.inference.resolution import Resolution
from server.version import slmops_version


@dataclass(frozen=True, slots=True)
class Identity:
    """model: as the client named it. system_fingerprint: what made the answer, so that a change can be noticed.

    service_tier: answered to those who ask for one.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: str | None = None

    @classmethod
    def new(cls, prefix: str, resolution: Resolution, service_tier: str | None = None) -> Identity:
        """prefix: `chatcmpl` or `cmpl`. service_tier: the one asked for, if any; there is only one."""
        fingerprint = f"slmops-{slmops_version()}/{resolution.label}"
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), resolution.name, fingerprint, service_tier and "default")
