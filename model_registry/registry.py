"""The store of models: which models this machine has. What changes their tables or the artifact folders is in this file.

Knows nothing about where models come from (see `pull`), nor which versions are loaded: callers pass them in. Reads are answered
from a snapshot in memory that is renewed when models changed, whoever changed them. Every method may wait for the disk, and
those that write for other writers: an event loop calls none of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import Connection

from model_registry import queries
from model_registry.aliases import (
    alias_named,
    attachment_named,
    check_alias_is_free,
    check_unused,
    plan_alias_removal,
    plan_attachment,
    plan_detachments,
    plan_point,
    plan_removal,
    plan_restored_aliases,
)
from model_registry.artifacts import ArtifactStore, DescribedVariant, StagedVariant, check_names, describe, digest_of
from model_registry.database import Database
from model_registry.disk import storage_errors, tree_bytes
from model_registry.disk_space.candidates import Keeper
from model_registry.disk_space.home_disk import HomeDisk
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.limits import NO_LIMITS, DiskLimits
from model_registry.disk_space.registry_keeper import RegistryKeeper
from model_registry.disk_space.reservations import Need
from model_registry.disk_space.spare import room_to_delete
from model_registry.errors import ModelInUse
from model_registry.names import Label, check_alias_name, check_model_name, parse_label
from model_registry.records import LIVE, Alias, Attachment, Manifest, Model, ModelVersion
from model_registry.schema import Subject
from model_registry.snapshot import Snapshot
from model_registry.staging import is_held, staging_folder
from model_registry.verification import Problem, problems_of


class Registry:
    """The models in the database's home. Safe beside other threads and processes.

    limits: how much of the disk the home may take. keepers: who keeps other files in it; without them, collections leave these.
    Writes wait for other writers as long as the database says, then RegistryBusy. Where nothing can be written, what is there is
    read, and writes raise NotWritable or OutOfDisk.
    """

    def __init__(self, database: Database, limits: DiskLimits = NO_LIMITS, keepers: Sequence[Keeper] = ()) -> None:
        self.database = database
        self.home = database.home
        self._store = ArtifactStore(database.home)
        self._snapshot: Snapshot | None = None
        self.disk = HomeDisk(self.home, limits, [RegistryKeeper(self, self._store), *keepers], self._owners_of_blobs)

    # ---- reads ----

    @property
    def why_read_only(self) -> str | None:
        """Why nothing can be written, and what to do; None where it can."""
        why = self.database.why_read_only
        return None if why is None else why.message

    def snapshot(self) -> Snapshot:
        """Everything, as the database has it now; the same object until somebody has changed models."""
        with self.database.reading() as reader:
            count = self.database.change_count(reader, Subject.MODELS)
            if self._snapshot is None or self._snapshot.change_count != count:
                with self.database.consistent(reader):
                    self._snapshot = Snapshot(count, MappingProxyType(queries.load_models(reader, self._store)))
            return self._snapshot

    def models(self) -> tuple[Model, ...]:
        """All models, by name."""
        return tuple(self.snapshot().models.values())

    def model(self, name: str) -> Model:
        """Raises ModelNotFound."""
        return self.snapshot().model(name)

    def resolve(self, name: str) -> ModelVersion:
        """`name` (what `live` points to), `name:NUMBER` or `name:alias`. Raises ModelNotFound."""
        return self.snapshot().resolve(name)

    def verify(self, name: str) -> tuple[Problem, ...]:
        """Hashes every artifact of a version, or of all for a bare name; empty if all is well. Raises ModelNotFound."""
        label = parse_label(name)
        versions = self.model(label.name).versions if label.is_bare else (self.resolve(name),)
        return tuple(problem for version in versions for problem in problems_of(version))

    # ---- writes ----

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder on the same file system as the artifacts, gone when the block ends."""
        with staging_folder(self.home / "staging") as folder:
            yield folder

    def publish(
        self,
        name: str,
        manifest: Manifest,
        variants: Sequence[StagedVariant],
        *,
        alias: str = LIVE,
        hashed: Callable[[int], None] | None = None,
    ) -> ModelVersion:
        """A new version of `name`, or the existing one with the same content, which then stays where its aliases are.

        alias: which one moves to the new version; where it is `live`, `previous` moves to where that was. A model's first
        version is always `live`. Quotas count, unless room for it is reserved. `hashed` is called with each number of bytes read.
        Raises InvalidName, CorruptModel, UnsupportedModel, OutOfDisk; then nothing has changed.
        """
        check_model_name(name)
        check_names(variants)
        with self.disk.reserving(self._needs(variants), f"publishing {name}"):
            total = sum(tree_bytes(variant.folder) for variant in variants)
            with storage_errors(self.home, total, f"publishing {name}"):
                described = [describe(variant, hashed) for variant in variants]
            return self._publish(name, manifest, described, alias)

    def put_back(self, model: Model, described: Mapping[int, Sequence[DescribedVariant]]) -> dict[int, int]:
        """Versions of `model` from a backup, as they were; returns the number that each version of `model` has here, if it is here.

        described: the files of those that are missing here, by number. A number that another version has here is not used: the
        version gets the next one. Aliases that are missing here are set; others stay.
        """
        with self.database.exclusive():
            here = self.snapshot().models.get(model.name)
            numbers = {version.number: found.number for version in model.versions for found in _same_content(here, version)}
            missing = [version for version in model.versions if version.number in described and version.number not in numbers]
            taken = {version.number for version in here.versions} if here else set()
            with self.database.reading() as reader:
                following = max(queries.next_number(reader, model.name), *(version.number + 1 for version in model.versions))
            for version in missing:
                free = version.number not in taken
                numbers[version.number], following = (version.number, following) if free else (following, following + 1)
                self._store.place(model.name, numbers[version.number], described[version.number])
            with self.database.writing(Subject.MODELS) as connection:
                for version in missing:
                    files, number = described[version.number], numbers[version.number]
                    queries.insert_version(
                        connection, model.name, number, version.digest, version.manifest, files, version.created_at
                    )
                if numbers:
                    pointers = plan_restored_aliases(here, model.aliases, numbers)
                    queries.replace_aliases(connection, model.name, pointers)
                    queries.reserve_numbers(connection, model.name, following)
        return numbers

    def set_alias(self, model: str, alias: str, number: int, *, weight: float = 1.0) -> Alias:
        """Raises InvalidName, ModelNotFound. Moving `live` lets `previous` point to where it was."""
        check_alias_name(alias)
        with self.database.exclusive():
            found = self.model(model)
            self.snapshot().version_of(Label(model, number=number))
            check_alias_is_free(found, alias)
            with self.database.writing(Subject.MODELS) as connection:
                queries.replace_aliases(connection, model, plan_point(found.aliases, model, alias, number, weight))
        return Alias(model, alias, number, weight)

    def remove_alias(self, model: str, alias: str) -> Alias:
        """Raises ModelNotFound; ModelInUse for `live`, which a model always has."""
        with self.database.exclusive():
            found = self.model(model)
            gone = alias_named(found, alias)
            kept = plan_alias_removal(found.aliases, gone)
            with self.database.writing(Subject.MODELS) as connection:
                queries.replace_aliases(connection, model, kept)
        return gone

    def attach(self, model: str, name: str, version: str) -> Attachment:
        """Serves the adapter of a tuned version as `model:name`. Raises InvalidName, ModelNotFound, UnsupportedModel."""
        check_alias_name(name)
        with self.database.exclusive():
            attached = plan_attachment(self.model(model), name, self.resolve(version))
            with self.database.writing(Subject.MODELS) as connection:
                queries.insert_attachment(connection, attached)
        return attached

    def detach(self, model: str, name: str) -> Attachment:
        """Raises ModelNotFound."""
        with self.database.exclusive():
            attached = attachment_named(self.model(model), name)
            with self.database.writing(Subject.MODELS) as connection:
                queries.delete_attachment(connection, attached)
        return attached

    def remove(
        self, name_or_label: str, *, force: bool = False, in_use: Collection[str] = (), only_if: Callable[[], bool] | None = None
    ) -> int:
        """Removes a version, or for a bare name the model with all versions and aliases; bytes freed.

        Loaded versions are known by their holds (`staging.py`); in_use adds labels (`name:NUMBER`) known otherwise. Raises
        ModelNotFound, and ModelInUse unless forced. When the version that `live` points to is forced out, `live` falls back to
        `previous`, else to the newest that remains. Works on a full disk.
        only_if: called when nobody else changes models; ModelInUse where it says no.
        """
        label = parse_label(name_or_label)
        with room_to_delete(self.home), self.database.exclusive():
            if only_if is not None and not only_if():
                raise ModelInUse(f"{name_or_label} came into use.")
            model = self.model(label.name)
            to_delete = model.versions if label.is_bare else (self.resolve(name_or_label),)
            if not force:
                held = [found.label for found in to_delete if any(is_held(variant.folder) for variant in found.variants)]
                check_unused(model, to_delete, [*in_use, *held], whole=label.is_bare)
            with self.database.writing(Subject.MODELS) as connection:
                for attached in plan_detachments(model, to_delete, self.snapshot().models):
                    queries.delete_attachment(connection, attached)
                orphans = _delete(connection, model, to_delete)
            return sum(self._store.discard(model.name, version.number, orphans) for version in to_delete)

    def collect_garbage(self) -> int:
        """Removes what nothing needs, and what else must go for the limits; see `HomeDisk.collect`. Bytes freed."""
        return self.disk.collect().freed_bytes

    # ---- inside ----

    def _publish(self, name: str, manifest: Manifest, described: Sequence[DescribedVariant], alias: str) -> ModelVersion:
        digest = digest_of(described)
        with self.database.exclusive():
            model = self.snapshot().models.get(name)
            same = next((version for version in model.versions if version.digest == digest), None) if model else None
            if same is not None and not problems_of(same, hashing=False):
                return same
            if same is None:
                self._publish_new(name, digest, manifest, described, alias)
            else:  # its files were damaged: put them back
                self._store.place(name, same.number, described)
        return next(version for version in self.model(name).versions if version.digest == digest)

    def _needs(self, variants: Sequence[StagedVariant]) -> list[Need]:
        """What publishing adds: nothing for what is published already, and what is staged in the home only changes its kind."""
        new = [each.folder for each in variants if not each.folder.is_relative_to(self.home / "models")]
        staged = [folder for folder in new if folder.is_relative_to(self.home / "staging")]
        moved = Need(StorageKind.DOWNLOADS, -sum(map(tree_bytes, staged)))
        return [Need(StorageKind.VERSIONS, sum(map(tree_bytes, new))), moved]

    def _owners_of_blobs(self) -> Mapping[str, Collection[str]]:
        """Labels of the versions that have each blob, by its digest; nothing while there is no database."""
        owners: dict[str, set[str]] = {}
        models = self.models() if self.database.exists() else ()
        for version in (version for model in models for version in model.versions):
            for artifact in (artifact for variant in version.variants for artifact in variant.artifacts):
                owners.setdefault(artifact.sha256, set()).add(version.label)
        return owners

    def _publish_new(self, name: str, digest: str, manifest: Manifest, described: Sequence[DescribedVariant], alias: str) -> None:
        """Files first, rows last: the commit is the moment the version exists."""
        with self.database.reading() as reader:
            number = queries.next_number(reader, name)
        self._store.place(name, number, described)
        model = self.snapshot().models.get(name)
        with self.database.writing(Subject.MODELS) as connection:
            queries.insert_version(connection, name, number, digest, manifest, described)
            aliases = model.aliases if model else ()
            queries.replace_aliases(connection, name, plan_point(aliases, name, alias if aliases else LIVE, number))


@contextlib.contextmanager
def open_registry(home: Path, limits: DiskLimits = NO_LIMITS) -> Iterator[Registry]:
    """The models under `home` (created when missing), on a database of their own: for who needs no other store."""
    with Database(home) as database:
        database.open()
        yield Registry(database, limits)


def _same_content(model: Model | None, version: ModelVersion) -> list[ModelVersion]:
    return [found for found in model.versions if found.digest == version.digest] if model else []


def _delete(connection: Connection, model: Model, to_delete: Sequence[ModelVersion]) -> set[str]:
    """Rows go; the digests that nothing refers to any more."""
    remaining = {version.number for version in model.versions} - {version.number for version in to_delete}
    candidates = {artifact.sha256 for version in to_delete for variant in version.variants for artifact in variant.artifacts}
    if remaining:
        for version in to_delete:
            queries.delete_version(connection, model.name, version.number)
            queries.replace_aliases(connection, model.name, plan_removal(model.aliases, version.number, remaining))
    else:
        queries.delete_model(connection, model.name)
    return candidates - queries.referenced_blobs(connection)
