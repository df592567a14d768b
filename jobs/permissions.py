"""What the machine's configuration allows jobs beyond the registry: code, folders, servers. Values only.

`JobPermissions` is the configuration's; `Grants` is the part of it that one job's process is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from model_registry.disk_space.limits import NO_LIMITS, DiskLimits
from model_registry.references import MAX_CHARS

EXPORTS = "exports"  # in the home: where jobs may write folders without further permission


@dataclass(frozen=True, slots=True)
class EndpointSource:
    """An OpenAI-compatible server of the configuration. url: up to and with `/v1`.

    key_env: the variable of the daemon that holds its key; key_file: the file that does. is_private: whether its name may mean
    an address of this machine or its network; an address that is written out, and `localhost`, may always.
    """

    url: str
    key_env: str | None = None
    key_file: Path | None = None
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class EndpointAccess:
    """A server that a job may call. key: sent as a bearer token, never shown; None for none."""

    url: str
    key: str | None = field(default=None, repr=False)
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class JobPermissions:
    """allow_code: whether code that arrives as data may run. data_roots: folders whose files may be read by their paths.

    output_roots: folders that may be written in, beside `<home>/exports`. endpoints: by name.
    """

    allow_code: bool = False
    data_roots: tuple[Path, ...] = ()
    output_roots: tuple[Path, ...] = ()
    endpoints: Mapping[str, EndpointSource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grants:
    """What one job's process may do. endpoints: those that its params name. data_roots: as texts, for they cross processes."""

    allow_code: bool = False
    data_roots: tuple[str, ...] = ()
    endpoints: Mapping[str, EndpointAccess] = field(default_factory=dict)


class NotAllowed(ValueError):
    """The path may not be used; the message has the reason, without a final stop."""


def path_under(text: str, roots: Iterable[Path | str], *, inside: bool = False) -> Path:
    """The path with its folders' links followed; its last part keeps its name, which shows what kind of file it is.

    inside: the roots themselves are refused, too. Never reveals whether something exists outside of the roots. Raises NotAllowed.
    """
    if len(text) > MAX_CHARS:
        raise NotAllowed(f"is longer than {MAX_CHARS} characters")
    try:
        path = Path(text).expanduser()
        if not path.is_absolute():
            raise NotAllowed("is not a whole path, from the root")
        real = path.resolve()
        folders = [Path(root).expanduser().resolve() for root in roots]
        if not any(real.is_relative_to(folder) and not (inside and real == folder) for folder in folders):
            raise NotAllowed("lies in no folder that is allowed")
        return path.parent.resolve() / path.name if path.name != ".." else real
    except (OSError, RuntimeError) as error:
        raise NotAllowed("cannot be followed: its links lead in a circle, or it is too long") from error
    except ValueError as error:
        if isinstance(error, NotAllowed):
            raise
        raise NotAllowed("is no path") from error


@dataclass(frozen=True, slots=True)
class JobLimits:
    """max_running: processes at a time. memory_bytes, threads: of each; None and 0 for no limit and all cores.

    max_attempts: in a row without a checkpoint, for failures that may pass; retry_after_s: the waits between them.
    close_grace_s: what a running job gets to leave a checkpoint when the daemon ends. offline: nothing may be fetched.
    max_plans: that are made at a time; plan_memory_bytes: of each one's process, if that is less than memory_bytes.
    disk: how much of it the home may take.
    """

    max_running: int = 1
    memory_bytes: int | None = None
    threads: int = 0
    max_attempts: int = 3
    retry_after_s: tuple[float, ...] = (2.0, 8.0, 32.0)
    close_grace_s: float = 5.0
    offline: bool = False
    max_plans: int = 2
    plan_memory_bytes: int = 2 << 30
    disk: DiskLimits = NO_LIMITS

    @property
    def bytes_of_a_plan(self) -> int:
        return min(self.plan_memory_bytes, self.memory_bytes or self.plan_memory_bytes)
