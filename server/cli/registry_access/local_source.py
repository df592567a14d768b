"""Models that lie on this machine, as references: found, and brought to a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_registry.references import PathReference, parse_reference

if TYPE_CHECKING:
    from server.cli.daemon import Daemon


def normalized(reference: str) -> str:
    """The reference, written in one way, so that two commands mean the same pull; a path that is here as an absolute one.

    `folder/name`, which would be a repository of the hub, is a path where it is here. Raises InvalidReference.
    """
    text = reference.strip()
    if "/" in text and "://" not in text and _exists(Path(text).expanduser()):
        return str(Path(text).expanduser().absolute())
    parsed = parse_reference(text)
    return text if isinstance(parsed, PathReference) else str(parsed)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


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
