"""Files of this machine as a job's data, and folders as models to convert: uploaded once for the same content, and named by id.

Each kind's params declare which of them are files. Paths that the daemon may read itself stay paths, made absolute.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jobs.fields import FieldKind, Reference, ReferenceKind, replaced
from server.cli.failures import MISUSED, CommandFailed

if TYPE_CHECKING:
    from jobs.task import JobKind
    from server.cli.daemon import Daemon

_PURPOSES = {"evaluate": "evals", "olive": "user_data", "convert": "user_data"}  # other kinds learn from their data


def with_whole_paths(kind: JobKind, params: Any, folder: Path) -> Any:
    """The params with whole paths in place of relative ones and of ~. folder: what relative ones begin from.

    params: of any JSON type, as a file has them. What names no file is unchanged. Raises CommandFailed.
    """
    texts = {each.path: str(path) for each in _references(kind, params) if (path := _path_of(each, folder)) is not None}
    return replaced(params, texts)


def missing_files(kind: JobKind, params: Any) -> list[str]:
    """A line for each file and folder that is to be read, and is not there. params: with whole paths."""
    found = [(each, _path_of(each, Path())) for each in _references(kind, params) if each.field is not FieldKind.OUTPUT]
    return [f"{each.param}: {why}" for each, path in found if path is not None and (why := _why_unreadable(each, path))]


def with_files(daemon: Daemon, kind: JobKind, params: Any, roots: Sequence[Path]) -> Any:
    """The params with ids in place of local files, which are uploaded. params: with whole paths; roots: whose files the daemon
    reads by their paths. Raises CommandFailed.
    """
    texts: dict[tuple[str | int, ...], str] = {}
    for each in _references(kind, params):
        path = _path_of(each, Path())
        if path is not None and each.field is not FieldKind.OUTPUT:
            texts[each.path] = _sent(daemon, kind, each, path, roots)
    return replaced(params, texts)


def _references(kind: JobKind, params: Any) -> tuple[Reference, ...]:
    from jobs.tasks.kinds import task_for

    return task_for(kind).params.references(params)


def _path_of(each: Reference, folder: Path) -> Path | None:
    """The whole path that it names; None for what is an upload's id, a version, a model elsewhere."""
    if each.kind in (ReferenceKind.JOB, ReferenceKind.UPLOAD, ReferenceKind.VERSION, ReferenceKind.ENDPOINT) or each.field is None:
        return None
    if each.field is FieldKind.SOURCE and not _is_local(each.name, folder):
        return None
    try:
        return (folder / Path(each.name).expanduser()).absolute()
    except (ValueError, RuntimeError) as error:  # ~nobody
        raise CommandFailed(f"{each.param}: {each.name} is no usable path ({error})", MISUSED) from None


def _is_local(source: str, folder: Path) -> bool:
    """Whether a model to import is on this machine; one that is written as an address is the daemon's to look for."""
    from model_registry.errors import InvalidReference
    from model_registry.references import PathReference, parse_reference

    if "://" in source:
        return False
    try:
        return (folder / source).is_file() or isinstance(parse_reference(source), PathReference)
    except (InvalidReference, OSError, ValueError):
        return False  # the daemon reports it


def _why_unreadable(each: Reference, path: Path) -> str:
    """Empty when nothing is known to be wrong."""
    try:
        if not path.exists():
            return f"there is no {path}"
        return f"{path} is a folder, and must be a file" if each.field is FieldKind.FILE and path.is_dir() else ""
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {error}"


def _sent(daemon: Daemon, kind: JobKind, each: Reference, path: Path, roots: Sequence[Path]) -> str:
    """What names the file to the daemon: its path, where that is allowed, else the id of the upload."""
    from jobs.permissions import NotAllowed, path_under

    try:
        return str(path_under(str(path), roots))
    except NotAllowed:
        purpose = _PURPOSES.get(kind, "fine-tune")
        if path.is_file():
            return _uploaded(daemon, path, purpose)
        return _uploaded_folder(daemon, path, purpose) if each.field is FieldKind.SOURCE and path.is_dir() else str(path)


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
