"""Who makes a request: the key or the local program behind it, and what it may do. Made once per request by the authenticator.

Values only: knows no HTTP and no database.
"""

from __future__ import annotations

from collections.abc import Iterable
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

    @property
    def only_own(self) -> str | None:
        """Whose files and jobs exist for it: its own, by its id; None: everybody's, for an admin."""
        return None if self.allows(AccessScope.ADMIN) else self.id


LOCAL = Principal("local", "local", frozenset(AccessScope))
"""A program on this machine while no keys are configured."""

ANONYMOUS = Principal("anonymous", "anonymous", frozenset())
"""The principal of a request without a valid key while keys are configured: only the open paths answer it."""


class InsufficientScope(Exception):
    """The principal may not do this. param: the field that needs it, when it is not the route itself."""

    def __init__(self, principal: Principal, needed: Iterable[AccessScope], param: str | None = None) -> None:
        wanted = " or ".join(f"`{scope}`" for scope in needed)
        has = ", ".join(f"`{scope}`" for scope in sorted(principal.scopes)) or "none"
        what = "This" if param is None else f"This value of {param}"
        super().__init__(f"{what} needs the scope {wanted}; the key {principal.name!r} has {has}. Use a key that has the scope.")
        self.param = param
