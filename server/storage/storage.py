"""What the gateway keeps in its home: one database, the stores on it, and the two threads that wait for it.

The one place where stores are built on the gateway's database. Reads of stores run in threads of the event loop, writes on
`writes`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from jobs.disk_keeper import JobKeeper
from jobs.store import JobStore
from model_registry.database import Database
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.limits import NO_LIMITS, DiskLimits
from model_registry.disk_space.reservations import Need
from model_registry.disk_space.upload_keeper import UploadKeeper
from model_registry.evaluations import EvaluationStore
from model_registry.keys import KeyStore
from model_registry.registry import Registry
from model_registry.uploads import FileStore
from server.storage.disk_watch import DiskWatch
from server.storage.snapshots import ApiKeys, RegistryAccess
from server.storage.threads import ChangeWatch, Renewal, WriteThread


class Storage:
    """start() to follow other processes, close() when done; both off the event loop or before it. The database is closed with it.

    serves_models: whether requests name the registry's models; without it nothing is made in a home, or opened, before it is
    needed. limits: how much of the disk the home may take. Raises RegistryError when the database cannot be used.
    """

    def __init__(self, database: Database, *, serves_models: bool = True, limits: DiskLimits = NO_LIMITS) -> None:
        self.database = database
        self.writes = WriteThread(database)
        models = registry_of(database, limits)
        self.disk = models.disk
        self.disk_watch = DiskWatch(models.disk)
        self.files = FileStore(database, self.writes, self._room_for_upload)
        self.evaluations = EvaluationStore(database)
        self.jobs = JobStore(database)
        self.keys = ApiKeys(KeyStore(database), self.writes)
        self.registry = RegistryAccess(models, self.writes, serves=serves_models)
        self._serves_models = serves_models
        self._watch = ChangeWatch(*self._renewals())

    def _renewals(self) -> list[Renewal]:
        keys = Renewal(self.keys.renew, "API keys cannot be read; those known before hold")
        if not self._serves_models:
            return [keys]
        return [keys, Renewal(self.registry.renew, "the registry cannot be read; serving what was there")]

    def start(self) -> None:
        self._watch.start()
        self.disk_watch.start()

    def require_room_for_job(self, num_bytes: int) -> None:
        """Raises OutOfDisk."""
        self.disk.require([Need(StorageKind.JOBS, num_bytes)], "the job")

    def _room_for_upload(self, num_bytes: int, folder: str) -> AbstractContextManager[None]:
        return self.disk.reserving([Need(StorageKind.UPLOADS, num_bytes, folder)], "the upload")

    def look_soon(self) -> None:
        """Somebody has probably written: what is held in memory is renewed at once, off the caller's thread."""
        self._watch.look_soon()

    def close(self) -> None:
        """Once every write that was begun is done."""
        self.disk_watch.close()
        self._watch.close()
        self.writes.shutdown()
        self.registry.close()
        self.database.close()


def registry_of(database: Database, limits: DiskLimits) -> Registry:
    """The models of the database's home, with everybody who keeps files there: its collections are of the whole home."""
    return Registry(database, limits, (UploadKeeper(database.home, FileStore(database)), JobKeeper(JobStore(database))))
