"""What the machine's configuration allows jobs beyond the registry: code, folders, servers. Values only.

`JobPermissions` is the configuration's; `Grants` is the part of it that one job's process is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
    """A server that a job may ask. key: sent as a bearer token, never shown; None for none."""

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
