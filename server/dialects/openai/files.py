"""`/v1/files`: data of fine-tuning jobs, uploaded, listed, read and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, HTTPException, Query, Request, UploadFile
from starlette.responses import FileResponse, Response

from jobs.fields import ReferenceKind
from jobs.service import JobService
from model_registry.uploads import FileNotKnown, FileStore, StoredFile
from server.dialects.openai.errors import InvalidParam
from server.dialects.openai.wire.errors import documented
from server.dialects.openai.wire.fine_tuning import FileDeleted, FileList, FileObject, Purpose
from server.http.access import CallerPrincipal, GuardedRoute, requires
from server.http.errors import FileInUse
from server.principal import AccessScope

_HOUR_S, _MONTH_S = 3_600, 2_592_000
_FORM_LIMITS = {"max_files": 1, "max_fields": 16, "max_part_size": 1 << 12}
_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_BYTES: dict[int | str, dict[str, Any]] = {200: {"content": _CONTENT}}


class FormRequest(Request):
    """A form with one file and a few short fields; more would be kept in memory. Raises HTTPException for other forms."""

    def form(self, **limits: Any) -> Any:
        if not self.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise HTTPException(400, "An upload is a form of the type multipart/form-data, with the fields file and purpose.")
        return super().form(**limits | _FORM_LIMITS)


class FormRoute(GuardedRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(FormRequest(request.scope, request.receive))

        return handle


def files_router(uploads: FileStore, jobs: JobService) -> APIRouter:
    router = APIRouter(prefix="/v1/files", tags=["openai"], route_class=FormRoute)

    @router.post("", responses=documented(400, 413, 500), summary="Upload a file")
    @requires(AccessScope.JOBS, changes_state=True)
    async def upload(
        file: UploadFile,
        caller: CallerPrincipal,
        purpose: Annotated[Purpose, Form()],
        anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
        seconds: Annotated[int | None, Form(alias="expires_after[seconds]", ge=_HOUR_S, le=_MONTH_S)] = None,
    ) -> FileObject:
        """Training data is checked, line by line, when a job is created with it."""
        if (anchor is None) != (seconds is None):
            raise InvalidParam("expires_after needs both anchor and seconds.", param="expires_after")
        if not file.filename:
            raise InvalidParam("The file has no name.", param="file")
        stored = await asyncio.to_thread(uploads.add, file.file, file.filename[:255], purpose, seconds, caller.id)
        if stored.size_bytes == 0:
            await asyncio.to_thread(uploads.remove, stored.id)
            raise InvalidParam("The file is empty.", param="file")
        return file_object(stored)

    @router.get("", responses=documented(400, 404, 500), summary="List the files")
    @requires(AccessScope.JOBS, changes_state=False)
    async def list_files(
        caller: CallerPrincipal,
        purpose: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> FileList:
        """The files that the key uploaded; an admin sees all."""
        found = await asyncio.to_thread(uploads.find, purpose, caller.only_own)
        found = found if order == "desc" else found[::-1]
        ids = [each.id for each in found]
        if after is not None and after not in ids:
            raise FileNotKnown(f"There is no file {after!r} in this list.")
        found = found if after is None else found[ids.index(after) + 1 :]
        page = found[:limit]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return FileList(data=[file_object(each) for each in page], first_id=first, last_id=last, has_more=len(found) > limit)

    @router.get("/{file_id}", responses=documented(404, 500), summary="Describe a file")
    @requires(AccessScope.JOBS, changes_state=False)
    async def retrieve(file_id: str, caller: CallerPrincipal) -> FileObject:
        return file_object(await asyncio.to_thread(uploads.get, file_id, caller.only_own))

    @router.get("/{file_id}/content", response_class=Response, responses=documented(404, 500) | _BYTES, summary="Read a file")
    @requires(AccessScope.JOBS, changes_state=False)
    async def content(file_id: str, caller: CallerPrincipal) -> Response:
        stored = await asyncio.to_thread(uploads.get, file_id, caller.only_own)
        return FileResponse(stored.path, media_type="application/octet-stream", filename=stored.filename)

    @router.delete("/{file_id}", responses=documented(404, 409, 500), summary="Delete a file")
    @requires(AccessScope.JOBS, changes_state=True)
    async def delete(file_id: str, caller: CallerPrincipal) -> FileDeleted:
        """Refused while a job that has not ended reads it: the job may have to restart."""
        await asyncio.to_thread(uploads.get, file_id, caller.only_own)
        for job in jobs.active():
            references = await jobs.kinds.references(job.kind, job.params)
            if any(each.kind is ReferenceKind.UPLOAD and each.name == file_id for each in references):
                raise FileInUse(file_id, job.id, job.status)
        await asyncio.to_thread(uploads.remove, file_id)
        return FileDeleted(id=file_id)

    return router


def file_object(stored: StoredFile) -> FileObject:
    return FileObject(
        id=stored.id,
        bytes=stored.size_bytes,
        created_at=int(stored.created_at.timestamp()),
        expires_at=int(stored.expires_at.timestamp()) if stored.expires_at else None,
        filename=stored.filename,
        purpose=stored.purpose,
        sha256=stored.sha256,
    )
