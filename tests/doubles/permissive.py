"""Permissions for tests whose subject is something else: every file of the machine may be read and written, no code may run."""

from __future__ import annotations

from pathlib import Path

from jobs.permissions import JobPermissions

_ROOT = Path(Path.cwd().anchor)
EVERYWHERE = JobPermissions(data_roots=(_ROOT,), output_roots=(_ROOT,))
