"""`/admin/logs`: the latest lines of the daemon's log."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from server.dialects.openai.wire.errors import documented
from server.http.access import GuardedRoute, requires
from server.log_buffer import MOST_LINES, LogBuffer
from server.principal import AccessScope


class LogLineBody(BaseModel):
    """number: of the line since the start of the daemon; time: Unix seconds."""

    number: int
    time: float
    level: str
    logger: str
    event: str
    fields: dict[str, Any]


class LogLines(BaseModel):
    """data: the oldest first."""

    object: Literal["list"] = "list"
    data: list[LogLineBody]


def logs_router(buffer: LogBuffer) -> APIRouter:
    router = APIRouter(tags=["admin"], route_class=GuardedRoute)

    @router.get("/admin/logs", responses=documented(400, 500), summary="Read the latest lines of the log")
    @requires(AccessScope.ADMIN, changes_state=False)
    async def read_logs(
        after: Annotated[int, Query(ge=0, le=2**63 - 1, description="Only lines after the one of this number.")] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LINES, description="The latest so many.")] = MOST_LINES,
    ) -> LogLines:
        """The daemon keeps its latest 2000 lines in memory. They have ids, counts and times, never prompts or answers."""
        return LogLines(data=[LogLineBody.model_validate(each, from_attributes=True) for each in buffer.after(after, limit)])

    return router
