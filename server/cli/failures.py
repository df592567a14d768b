"""How a failed command ends: with a red line that says what was wrong and what to do, one for each problem, and an exit code.

0 done · 1 failed · 2 used wrongly (flags, settings) · 130 interrupted
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FAILED = 1
MISUSED = 2
INTERRUPTED = 130


class CommandFailed(Exception):
    """message: what was wrong and what to do about it; a line for each of several problems."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Ending:
    """message: for the person, a line for each problem; empty when there is nothing to add."""

    message: str
    exit_code: int


def ending(error: BaseException) -> Ending:
    """What an exception that left a command means to the person who typed it, without credentials. Pure."""
    from model_registry.addresses import without_credentials

    found = _ending(error)
    return replace(found, message=without_credentials(found.message))


def _ending(error: BaseException) -> Ending:
    from model_registry.errors import RegistryError
    from runtime.protocol.errors import RuntimeFailure
    from server.settings.toml_file import InvalidSettings

    match error:
        case KeyboardInterrupt():
            return Ending("", INTERRUPTED)
        case CommandFailed():
            return Ending(error.message, error.exit_code)
        case RegistryError() | RuntimeFailure():
            return Ending(error.message, FAILED)
        case InvalidSettings():
            return Ending(str(error), MISUSED)
        case BrokenPipeError():
            return Ending("", FAILED)
        case OSError():
            return Ending(f"{_os_error(error)}; check the path, its permissions and the free space", FAILED)
        case _:
            detail = f"{type(error).__name__}: {error}"
            return Ending(f"unexpected {detail}; set SLMOPS_TRACEBACK=1 to see where, and report it", FAILED)


def _os_error(error: OSError) -> str:
    return f"{error.strerror or error}: {error.filename}" if error.filename else str(error.strerror or error)
