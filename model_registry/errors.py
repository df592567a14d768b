"""The errors of models on disk. A message says what was wrong and what to do; `server/` maps types to status.

RegistryError
├── ModelNotFound        no such model, version or alias
├── ModelInUse           loaded, or an alias points to it: stop it, move the alias, or force
├── InvalidReference     the text names no model source
├── InvalidName          not a possible name of a model or alias
│   └── NameTaken        a possible one that already means something else
├── SourceUnavailable    offline, not found, gated, or the server keeps failing
├── ChecksumMismatch     the bytes are not those that were promised
├── UnsupportedModel     sound, but not something slmops serves
├── CorruptModel         damaged, incomplete or dangerous
├── UnloadableModel      imported, but no engine here loads it
├── OutOfDisk            the file system is full, or a quota is used up
├── NotWritable          the system does not let this process write there
├── RegistryBusy         another process has been writing for longer than the caller waits; it may be tried again
└── DatabaseTooNew       the registry was written by a newer slmops
"""

from __future__ import annotations

from collections.abc import Mapping

from model_registry.addresses import without_credentials

_MOST_CHARACTERS = 8_000  # of a message, which may quote a client's input


class RegistryError(Exception):
    """The root. message: what was wrong and what to do about it, in full sentences; credentials in it are left out, and so is
    the middle of one that is very long."""

    def __init__(self, message: str) -> None:
        self.message = _shortened(without_credentials(message))
        super().__init__(self.message)

    def prefix(self, sentence: str) -> None:
        """Puts what the caller knows of the cause before the message."""
        self.message = _shortened(f"{without_credentials(sentence)} {self.message}")
        self.args = (self.message,)


class ModelNotFound(RegistryError):
    pass


class ModelInUse(RegistryError):
    pass


class InvalidReference(RegistryError):
    pass


class InvalidName(RegistryError):
    pass


class NameTaken(InvalidName):
    pass


class SourceUnavailable(RegistryError):
    pass


class ChecksumMismatch(RegistryError):
    pass


class UnsupportedModel(RegistryError):
    pass


class CorruptModel(RegistryError):
    pass


class UnloadableModel(RegistryError):
    pass


class OutOfDisk(RegistryError):
    """needed_bytes: how much did not fit."""

    def __init__(self, message: str, *, needed_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes


class NotWritable(RegistryError):
    headers: Mapping[str, str] = {"X-Should-Retry": "false"}  # HTTP clients would retry it, as any 5xx


class RegistryBusy(RegistryError):
    pass


class DatabaseTooNew(RegistryError):
    pass


def _shortened(message: str) -> str:
    half = _MOST_CHARACTERS // 2
    return message if len(message) <= _MOST_CHARACTERS else f"{message[:half]} ... {message[-half:]}"
