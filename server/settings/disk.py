"""What may be set for the disk: the table `[disk]` of slmops.toml. The variable SLMOPS_DISK has the same as a JSON object."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field
from pydantic_settings import NoDecode

from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.limits import DiskLimits

_LEAST_BYTES = 1 << 20
_MOST_DAYS = 3650
_LIMITED = tuple(kind for kind in StorageKind if kind is not StorageKind.OTHER)
Quota = Annotated[ByteSize | None, Field(ge=_LEAST_BYTES)]
Days = Annotated[float | None, Field(gt=0, le=_MOST_DAYS)]


class DiskSettings(BaseModel):
    """Quotas are checked before work begins; see docs/operate/disk.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    max_bytes: Quota = Field(default=None, description="Most that the home folder may take; unset: no limit.")
    versions_max_bytes: Quota = Field(default=None, description="Most of published versions.")
    checkpoints_max_bytes: Quota = Field(default=None, description="Most of checkpoints made from pulled versions.")
    uploads_max_bytes: Quota = Field(default=None, description="Most of uploaded files.")
    jobs_max_bytes: Quota = Field(default=None, description="Most of the folders of jobs.")
    downloads_max_bytes: Quota = Field(default=None, description="Most of downloads and imports in progress.")
    caches_max_bytes: Quota = Field(default=None, description="Most of caches.")
    exports_max_bytes: Quota = Field(default=None, description="Most of exported folders.")
    backups_max_bytes: Quota = Field(default=None, description="Most of backups.")
    min_free_bytes: ByteSize | None = Field(
        default=None, ge=0, description="What new work leaves free on the file system; unset: 2 GiB, or 5 % where that is less."
    )
    keep_versions: int | None = Field(default=None, ge=1, le=100_000, description="Newest versions kept per model; unset: all.")
    keep_jobs_days: Days = Field(default=None, description="Days until checkpoints of ended jobs go; unset: for room only.")
    keep_uploads_days: Days = Field(default=None, description="Days until uploads that no job needs go; unset: never.")

    def limits(self, *, offline: bool) -> DiskLimits:
        quotas = {kind: getattr(self, f"{kind}_max_bytes") for kind in _LIMITED}
        return DiskLimits(
            max_bytes=_plain(self.max_bytes),
            kinds={kind: int(quota) for kind, quota in quotas.items() if quota is not None},
            min_free_bytes=_plain(self.min_free_bytes),
            keep_versions=self.keep_versions,
            keep_jobs_days=self.keep_jobs_days,
            keep_uploads_days=self.keep_uploads_days,
            offline=offline,
        )


def _plain(size: ByteSize | None) -> int | None:
    return None if size is None else int(size)


def _from_text(value: object) -> object:
    """A JSON object (from a variable) as the table; other values stay as they are."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f'must be a JSON object such as {{"max_bytes": "200GB"}} ({error})') from None


DiskTable = Annotated[DiskSettings, NoDecode, BeforeValidator(_from_text)]
