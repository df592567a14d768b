"""Models that lie on this machine, as references: found, and brought to a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_registry.references import PathReference, parse_reference

if TYPE_CHECKING:
    from server.cli.daemon import Daemon


def with_local_path(reference: str) -> str:
    """The reference; `folder/name`, which would be a repository of the hub, as an absolute path where it is here."""
    text = reference.strip()
    if "/" not in text or "://" in text:
        return text
    path = Path(text).expanduser()
    try:
        return str(path.absolute()) if path.exists() else text
    except (OSError, ValueError):
        return text


def local_path(reference: str) -> Path | None:
    """The path that the reference names on this machine; None for sources elsewhere. Raises InvalidReference."""
    parsed = parse_reference(reference)
    return parsed.path if isinstance(parsed, PathReference) else None


def uploaded_source(daemon: Daemon, path: Path) -> str:
    """The id of the file, or of an archive of the folder, as the daemon has it now. Raises CommandFailed, CorruptModel."""
    from model_registry.errors import InvalidReference
    from server.cli.job_files import upload_source

    if not path.exists():
        raise InvalidReference(f"{path} does not exist. Check the spelling.")
    return upload_source(daemon, path)
