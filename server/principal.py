"""Who makes a request: the key or the local program behind it, and what it may do. Made once per request by the authenticator.

Values only: knows no HTTP and no database.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AccessScope(StrEnum):
    """What a principal may use. ADMIN includes all others."""

    INFERENCE = "inference"  # chat, completions, tokens, models, feedback, and files for batches
    JOBS = "jobs"  # training files, jobs on uploads and registry models
    READ = "read"  # metrics, health details, lists
    ADMIN = "admin"  # pulls, paths, endpoints, aliases, load and unload, delete, keys


@dataclass(frozen=True, slots=True)
class Principal:
    """id: stable and unique, e.g. a key's id; it owns files and is the unit of fair sharing. name: for people."""

    id: str
    name: str
    scopes: frozenset[AccessScope]

    def allows(self, scope: AccessScope) -> bool:
        return scope in self.scopes or AccessScope.ADMIN in self.scopes


LOCAL = Principal("local", "local", frozenset(AccessScope))
"""A program on this machine while no keys are configured."""
