"""Files of this machine as a job's data, and folders as models to convert: uploaded once for the same content, and named by id.

Each kind's params declare which of them are files. Paths that the daemon may read itself stay paths, made absolute.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jobs.fields import FieldKind, Reference, ReferenceKind, replaced
from server.cli.failures import MISUSED, CommandFailed

if TYPE_CHECKING:
    from server.cli.daemon import Daemon

_PURPOSES = {"evaluate": "evals", "olive": "user_data", "convert": "user_data"}  # other kinds learn from their data


def with_files(daemon: Daemon, kind: Any, params: Any, roots: Sequence[Path]) -> Any:
    """The params with ids in place of local files. roots: whose files the daemon reads by their paths.

    kind, params: of any JSON type, as the file has them. What is no job, or no local file, is passed on unchanged: the daemon
    reports the error. Raises CommandFailed.
    """
    from jobs.task import JobKind
    from jobs.tasks.kinds import task_for

    if not isinstance(kind, str) or kind not in set(JobKind) or not isinstance(params, Mapping):
        return params
    texts: dict[tuple[str | int, ...], str] = {}
    for each in task_for(JobKind(kind)).params.references(params):
        if (text := _named(daemon, kind, each, roots)) is not None:
            texts[each.path] = text
    return replaced(params, texts)


def _named(daemon: Daemon, kind: str, each: Reference, roots: Sequence[Path]) -> str | None:
    """What to put in its place; None to leave it as it is."""
    from jobs.permissions import NotAllowed, path_under

    if each.kind in (ReferenceKind.JOB, ReferenceKind.UPLOAD) or each.field in (None, FieldKind.ENDPOINT, FieldKind.VERSION):
        return None
    path = Path(each.name).expanduser()
    if each.field is FieldKind.OUTPUT:
        return str(path.absolute())
    if each.field is FieldKind.FILE and not path.is_absolute() and not _is_path(each, path):
        raise CommandFailed(f"{each.param}: there is no file {each.name} here", MISUSED)
    if not _is_path(each, path):
        return None
    try:
        return str(path_under(str(path.absolute()), roots))
    except NotAllowed:
        purpose = _PURPOSES.get(kind, "fine-tune")
        if path.is_file():
            return _uploaded(daemon, path, purpose)
        return _uploaded_folder(daemon, path, purpose) if each.field is FieldKind.SOURCE else str(path.absolute())


def _is_path(each: Reference, path: Path) -> bool:
    """Whether it is a file here; or, where a folder may be named, that, by a text that looks like no version's name."""
    try:
        if each.field is FieldKind.FILE or path.is_file():
            return path.is_file()
        return path.is_dir() and ("/" in each.name or each.name.startswith((".", "~")))
    except (OSError, ValueError):
        return False


def _uploaded_folder(daemon: Daemon, folder: Path, purpose: str) -> str:
    """The id of an archive of the folder, whose bytes depend on its content alone. Links lead where a model's may."""
    from model_registry.errors import RegistryError
    from model_registry.paths import check_source

    try:
        check_source(folder)
        with TemporaryDirectory(prefix="slmops-") as beside:
            archive = Path(beside) / f"{folder.absolute().name}.tar"
            with tarfile.open(archive, "w", dereference=True) as tarred:
                tarred.add(folder, folder.absolute().name, filter=_without_owner)
            return _uploaded(daemon, archive, purpose)
    except RegistryError as error:
        raise CommandFailed(f"{folder} cannot be uploaded: {error}", MISUSED) from None
    except OSError as error:
        raise CommandFailed(f"{folder} cannot be packed: {error.strerror}", MISUSED) from None


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def _uploaded(daemon: Daemon, path: Path, purpose: str) -> str:
    """The id of the file, which is not sent again when it is there."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            for known in daemon.call("GET", f"/v1/files?purpose={purpose}")["data"]:
                if (known.get("sha256"), known["filename"]) == (digest, path.name):
                    return str(known["id"])
            file.seek(0)
            return str(daemon.upload(file, path.name, purpose)["id"])
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}", MISUSED) from None


def upload_source(daemon: Daemon, path: Path) -> str:
    """The id of a model's file, or of an archive of its folder."""
    return _uploaded(daemon, path, _PURPOSES["convert"]) if path.is_file() else _uploaded_folder(daemon, path, _PURPOSES["convert"])
