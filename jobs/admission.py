"""What a job may touch, and what its process is started with: decided before it starts, by the references of its params.

`Admission` touches the file system, and runs in a thread. What it lets through is whole: uploads as their paths, folders with their
links followed. `Starter` makes the first message to a process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs.fields import Path as ParamPath
from jobs.fields import Reference, ReferenceKind, jobs_in, replaced, with_jobs
from jobs.job import WORK, Job
from jobs.kinds import Kinds
from jobs.messages import Start
from jobs.permissions import EXPORTS, EndpointAccess, EndpointSource, Grants, JobLimits, JobPermissions, NotAllowed, path_under
from jobs.task import InvalidJob, JobKind, Problem
from model_registry.disk import make_private_folder
from model_registry.errors import InvalidReference
from model_registry.references import PathReference, parse_reference

_UPLOAD = (
    "Upload the file to /v1/files and give its id (`slmops jobs create` does it), or list its folder in jobs.data_roots "
    "of slmops.toml"
)
_LIST = (
    "List its folder in jobs.data_roots of slmops.toml, and restart the daemon; or bring a model in with `slmops pull` first, "
    "and name it"
)


@dataclass(frozen=True, slots=True)
class Admitted:
    """params: with real paths in place of what was given. grants: what the process may do."""

    params: dict[str, Any]
    grants: Grants


@dataclass(frozen=True, slots=True)
class Admission:
    """file_of: an uploaded file's path by its id."""

    home: Path
    permissions: JobPermissions
    file_of: Callable[[str], str]

    def admit(self, params: Mapping[str, Any], references: Sequence[Reference]) -> Admitted:
        """references: all of the params. Raises InvalidJob with everything that is not allowed, and what `file_of` raises."""
        found = _Found()
        for each in references:
            try:
                self._admit(each, found)
            except NotAllowed as error:
                found.problems.append(Problem(f"{each.param}: {error}.", param=each.param, code="not_allowed"))
        if found.problems:
            raise InvalidJob(found.problems)
        uploads = (each for each in references if each.kind is ReferenceKind.UPLOAD)
        found.texts |= {each.path: self.file_of(each.name) for each in uploads}
        roots = tuple(str(root) for root in self.permissions.data_roots)
        grants = Grants(self.permissions.allow_code, roots, found.endpoints)
        return Admitted(replaced(params, found.texts), grants)

    def _admit(self, each: Reference, found: _Found) -> None:
        name = each.name
        match each.kind:
            case ReferenceKind.ENDPOINT:
                found.endpoints[name] = self._endpoint(name)
            case ReferenceKind.OUTPUT:
                found.texts[each.path] = str(self._output(name))
            case ReferenceKind.FILE:
                found.texts[each.path] = str(self._read(name, _UPLOAD))
            case ReferenceKind.SOURCE if (reference := _path_reference(name)) is not None:
                found.texts[each.path] = self._source(name.strip(), reference)
            case ReferenceKind.FOLDER:
                found.texts[each.path] = str(self._read(name, _LIST))

    def _read(self, text: str, remedy: str) -> Path:
        try:
            return path_under(text, self.permissions.data_roots)
        except NotAllowed as error:
            raise NotAllowed(f"the path {text[:200]!r} {error}. {remedy}") from None

    def _source(self, text: str, reference: PathReference) -> str:
        """A path stays one; an address `file://` keeps the hash that it promises."""
        if not text.startswith("file:"):
            return str(self._read(text, _LIST))
        return str(replace(reference, path=self._read(str(reference.path), _LIST)))

    def _output(self, text: str) -> Path:
        try:
            return path_under(text, (self.home / EXPORTS, *self.permissions.output_roots), inside=True)
        except NotAllowed as error:
            remedy = f"Choose one in {self.home / EXPORTS}, or list its folder in jobs.output_roots of slmops.toml"
            raise NotAllowed(f"the folder {text[:200]!r} {error}. {remedy}") from None

    def _endpoint(self, name: str) -> EndpointAccess:
        source = self.permissions.endpoints.get(name)
        if source is None:
            known = ", ".join(sorted(self.permissions.endpoints)) or "none"
            raise NotAllowed(
                f"there is no endpoint {name!r} in the configuration, which has {known}. Add [endpoints.{name}] with its url to "
                "slmops.toml, and restart the daemon"
            )
        return EndpointAccess(source.url, _key_of(name, source), source.is_private)


@dataclass(slots=True)
class _Found:
    texts: dict[ParamPath, str] = field(default_factory=dict)
    endpoints: dict[str, EndpointAccess] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def _key_of(name: str, source: EndpointSource) -> str | None:
    if source.key_env is not None:
        key = os.environ.get(source.key_env, "").strip()
        if not key:
            raise NotAllowed(f"the daemon has no variable {source.key_env} with the key of the endpoint {name!r}")
        return key
    if source.key_file is None:
        return None
    try:
        key = source.key_file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotAllowed(f"the key file of the endpoint {name!r} cannot be read ({type(error).__name__})") from None
    if not key:
        raise NotAllowed(f"the key file of the endpoint {name!r} is empty")
    return key


def _path_reference(text: str) -> PathReference | None:
    """The reference, where it is one to this machine."""
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return None  # the task reports what is wrong with it
    return reference if isinstance(reference, PathReference) else None


@dataclass(frozen=True, slots=True)
class Starter:
    """job: finds a job by its id, as `JobTable.job`."""

    home: Path
    limits: JobLimits
    kinds: Kinds
    admission: Admission
    job: Callable[[str], Awaitable[Job]]

    async def admit(self, kind: JobKind, params: Mapping[str, Any]) -> Admitted:
        """The params with real paths, and what the job is granted. Raises InvalidJob with what the configuration does not allow."""
        references = await self.kinds.references(kind, params)
        return await asyncio.to_thread(self.admission.admit, params, references)

    async def start(
        self,
        id_: str,
        kind: JobKind,
        params: Mapping[str, Any],
        folder: Path,
        *,
        attempt: int = 1,
        plan: bool = False,
        disk_bytes: int | None = None,
    ) -> Start:
        """params: as they were requested; versions take the place of the jobs that make them. disk_bytes: as its plan has them.

        Raises InvalidJob, JobNotFound, OutOfDisk, NotWritable.
        """
        made = {need: _version_made_by(await self.job(need)) for need in jobs_in(params)}
        admitted = await self.admit(kind, with_jobs(params, made))
        work = await asyncio.to_thread(make_private_folder, folder / WORK)
        limits = self.limits
        return Start(
            job=id_,
            kind=str(kind),
            params=admitted.params,
            home=str(self.home),
            folder=str(work),
            plan=plan,
            attempt=attempt,
            threads=limits.threads,
            memory_bytes=limits.memory_bytes,
            offline=limits.offline,
            plan_memory_bytes=limits.bytes_of_a_plan if plan else None,
            grants=admitted.grants,
            disk=limits.disk,
            disk_bytes=disk_bytes,
        )


def _version_made_by(job: Job) -> str:
    if job.outcome is None or job.outcome.version is None:
        raise InvalidJob([Problem(f"The job {job.id} made no version, so that '@{job.id}' means nothing.")])
    return job.outcome.version
