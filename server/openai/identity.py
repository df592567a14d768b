"""What every response of one request repeats: its id, time, model and fingerprint."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from server.served_models import ServedModel
from server.version import slmops_version


@dataclass(frozen=True, slots=True)
class Identity:
    """model: as the client named it. system_fingerprint: what made the answer, so that a change can be noticed."""

    id: str
    created: int
    model: str
    system_fingerprint: str

    @classmethod
    def new(cls, prefix: str, model: ServedModel) -> Identity:
        """prefix: `chatcmpl` or `cmpl`."""
        fingerprint = f"slmops-{slmops_version()}/{model.label}"
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), model.id, fingerprint)
