"""Copies of a home in one file, made and put back while a daemon serves. From outside, the names imported here are used."""

from __future__ import annotations

from model_registry.backup.archive import CorruptBackup, read_contents
from model_registry.backup.contents import Contents
from model_registry.backup.creation import Backup, BackupExists, back_up, back_up_to
from model_registry.backup.replacement import replaced_home
from model_registry.backup.restoration import Restored, RestoreOptions, restore

__all__ = [
    "Backup",
    "BackupExists",
    "Contents",
    "CorruptBackup",
    "RestoreOptions",
    "Restored",
    "back_up",
    "back_up_to",
    "read_contents",
    "replaced_home",
    "restore",
]
