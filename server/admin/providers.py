"""`/admin/providers`: what this machine can run models on, and what would make the rest usable."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from runtime.machine.execution_provider import ExecutionProvider
from runtime.machine.provider_directory import ProviderDirectory, ProviderReport
from server.dialects.openai.wire.errors import documented
from server.http.access import GuardedRoute, requires
from server.principal import AccessScope


class ProviderBody(BaseModel):
    """name: onnxruntime's; short: what settings call it. memory: `host`, or the device whose memory its models take.

    usable: whether models may run there; else why_not, and remedy, the command or act that would make it so.
    proven: slmops has run on such hardware.
    """

    name: str
    short: str
    kind: str
    device: str
    vendor: str
    device_index: int
    memory: str
    memory_bytes: int | None
    discrete: bool
    versions: list[str]
    engines: list[str]
    usable: bool
    why_not: str | None
    remedy: str | None
    proven: bool


class ProviderList(BaseModel):
    """problem: why only the CPU is known, null when the discovery worked."""

    object: Literal["list"] = "list"
    data: list[ProviderBody]
    problem: str | None


def providers_router(directory: ProviderDirectory) -> APIRouter:
    router = APIRouter(prefix="/admin/providers", tags=["admin"], route_class=GuardedRoute)

    @router.get("", responses=documented(500), summary="List the execution providers of this machine")
    @requires(AccessScope.READ, changes_state=False)
    async def list_providers(
        refresh: Annotated[bool, Query(description="Query the machine again, instead of answering from the first query.")] = False,
    ) -> ProviderList:
        """Usable or not. The first request takes as long as loading every vendor's library does."""
        return provider_list(await (directory.refresh() if refresh else directory.report()))

    return router


def provider_list(report: ProviderReport) -> ProviderList:
    return ProviderList(data=[_provider_body(provider) for provider in report.providers], problem=report.problem)


def _provider_body(provider: ExecutionProvider) -> ProviderBody:
    return ProviderBody(
        name=provider.name,
        short=provider.short,
        kind=provider.kind.value,
        device=provider.device,
        vendor=provider.vendor,
        device_index=provider.device_index,
        memory=provider.memory,
        memory_bytes=provider.memory_bytes,
        discrete=provider.discrete,
        versions=list(provider.versions),
        engines=list(provider.engines),
        usable=provider.usable,
        why_not=provider.why_not,
        remedy=provider.remedy,
        proven=provider.proven,
    )
