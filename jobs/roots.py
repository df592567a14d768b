"""Whether a path lies in a folder that is allowed: real paths are compared, so that links lead nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from model_registry.references import MAX_CHARS


class NotAllowed(ValueError):
    """The path may not be used; the message says why, without a final stop."""


def path_under(text: str, roots: Iterable[Path | str], *, inside: bool = False) -> Path:
    """The path with its folders' links followed; its last part keeps its name, which shows what kind of file it is.

    inside: a root itself is not enough. Never says whether something exists outside of the roots. Raises NotAllowed.
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
