"""Putting a backup back: what a home lacks is added, and nothing that it has is changed. Safe beside a daemon that serves.

Every step may be repeated: a restoration that was interrupted is completed by another one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from model_registry.artifacts import DescribedVariant, StagedVariant
from model_registry.backup import rows
from model_registry.backup.archive import unpack
from model_registry.backup.contents import Contents
from model_registry.database import Database
from model_registry.disk import link_or_copy, make_private_folder, storage_errors
from model_registry.disk_space.kinds import StorageKind
from model_registry.disk_space.reservations import Need
from model_registry.errors import ModelNotFound, RegistryError
from model_registry.names import parse_label
from model_registry.progress import Progress
from model_registry.records import Model, ModelVersion
from model_registry.registry import Registry


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """models: names, or labels `name:number`, of what is put back; none: everything.

    keys: whether API keys are put back; None: only into a home that has none. With models, no keys are.
    """

    models: tuple[str, ...] = ()
    keys: bool | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """What was added. numbers: for each restored label of the backup, the label that the version has here.

    present: labels of the backup whose content the home had. skipped: what could not be put back, in whole sentences.
    """

    contents: Contents
    numbers: Mapping[str, str] = field(default_factory=dict)
    present: tuple[str, ...] = ()
    num_evaluations: int = 0
    num_uploads: int = 0
    num_jobs: int = 0
    num_keys: int = 0
    skipped: tuple[str, ...] = ()


def restore(registry: Registry, source: IO[bytes], options: RestoreOptions, progress: Progress) -> Restored:
    """That there is room within the limits of the registry's home is checked before anything is written.

    Raises CorruptBackup, DatabaseTooNew, ModelNotFound (the backup has no such model), RegistryBusy, OutOfDisk, NotWritable.
    """

    def require_room(num_bytes: int) -> None:
        registry.disk.require([Need(StorageKind.VERSIONS, num_bytes)], "restoring the backup")

    with registry.staging() as folder, storage_errors(registry.home, 1 << 20, "restoring a backup"):
        contents = unpack(source, folder, progress, require_room)
        with registry.database.of(folder) as copy:
            copy.open()  # a backup of an earlier release is migrated here
            progress.stage("restoring")
            return _Restoration(registry, copy, folder, options, contents).run()


class _Restoration:
    def __init__(self, registry: Registry, copy: Database, folder: Path, options: RestoreOptions, contents: Contents) -> None:
        self._registry = registry
        self._saved = Registry(copy)
        self._rows = rows.saved_rows(copy)
        self._folder = folder
        self._options = options
        self._contents = contents
        self._labels: dict[str, str] = {}
        self._added: list[str] = []
        self._present: list[str] = []
        self._skipped: list[str] = list(contents.warnings)

    def run(self) -> Restored:
        chosen = self._chosen()
        for model, versions in chosen:
            self._put_back(model, versions)
        for model, _ in chosen:
            self._attach(model)
        everything = not self._options.models
        database = self._registry.database
        with_keys = self._options.keys if self._options.keys is not None else not rows.has_keys(database)
        return Restored(
            contents=self._contents,
            numbers={label: self._labels[label] for label in self._added},
            present=tuple(self._present),
            num_evaluations=rows.add_evaluations(database, self._rows, self._evaluated_label),
            num_uploads=self._add_uploads() if everything else 0,
            num_jobs=self._add_jobs() if everything else 0,
            num_keys=rows.add_keys(database, self._rows) if everything and with_keys else 0,
            skipped=tuple(self._skipped),
        )

    def _chosen(self) -> list[tuple[Model, tuple[ModelVersion, ...]]]:
        """Raises ModelNotFound, InvalidName."""
        if not self._options.models:
            return [(model, model.versions) for model in self._saved.models()]
        chosen: dict[str, tuple[Model, set[str]]] = {}
        for name in self._options.models:
            label = parse_label(name)
            try:
                model = self._saved.model(label.name)
                wanted = model.versions if label.is_bare else (self._saved.resolve(name),)
            except ModelNotFound as error:
                error.prefix("In the backup:")
                raise
            chosen.setdefault(model.name, (model, set()))[1].update(version.label for version in wanted)
        return [
            (model, tuple(version for version in model.versions if version.label in labels)) for model, labels in chosen.values()
        ]

    def _put_back(self, model: Model, versions: Sequence[ModelVersion]) -> None:
        here = {version.digest for each in self._registry.models() if each.name == model.name for version in each.versions}
        whole = [version for version in versions if version.digest in here or self._is_whole(version)]
        self._skipped += [f"{version.label} is not whole in the backup." for version in versions if version not in whole]
        self._present += [version.label for version in whole if version.digest in here]
        described = {version.number: self._described(version) for version in whole if version.digest not in here}
        numbers = self._registry.put_back(model, described)
        self._added += [f"{model.name}:{number}" for number in described]
        self._labels |= {f"{model.name}:{old}": f"{model.name}:{new}" for old, new in numbers.items()}

    def _is_whole(self, version: ModelVersion) -> bool:
        return all(self._blob(artifact.sha256).exists() for variant in version.variants for artifact in variant.artifacts)

    def _described(self, version: ModelVersion) -> list[DescribedVariant]:
        """Its variants as folders of links to what was unpacked, whose content was checked on the way."""
        described = []
        for variant in version.variants:
            folder = self._folder / "staged" / version.model / str(version.number) / variant.name
            for artifact in variant.artifacts:
                path = folder / artifact.path
                path.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(self._blob(artifact.sha256), path)
            staged = StagedVariant(variant.precision, variant.provider_family, folder, variant.role, variant.graph)
            described.append(DescribedVariant(staged, variant.artifacts))
        return described

    def _blob(self, sha256: str) -> Path:
        return self._folder / "blobs" / "sha256" / sha256[:2] / sha256

    def _evaluated_label(self, label: str) -> str | None:
        """The label here of what was evaluated; None when its evaluations are not to be put back."""
        if self._options.models and label not in (*self._added, *self._present):
            return None
        return self._labels.get(label, label)

    def _attach(self, model: Model) -> None:
        """Adapters of the model whose names are free, and whose versions are here."""
        found = self._registry.snapshot().models.get(model.name)
        if found is None:  # none of its versions was whole
            return
        here = {each.name for each in found.adapters}
        for each in model.adapters:
            if each.name in here:
                continue
            try:
                self._registry.attach(model.name, each.name, self._labels.get(each.version, each.version))
            except RegistryError as error:
                self._skipped.append(f"The adapter {model.name}:{each.name} is not attached. {error.message}")

    def _add_uploads(self) -> int:
        added = rows.missing_uploads(self._registry.database, self._rows)
        self._move("files", [row["id"] for row in added])
        rows.add_uploads(self._registry.database, added)
        return len(added)

    def _add_jobs(self) -> int:
        added = rows.missing_jobs(self._registry.database, self._rows)
        self._move("jobs", [row["id"] for row in added])
        rows.add_jobs(self._registry.database, added, self._rows.events)
        return len(added)

    def _move(self, kind: str, ids: Collection[str]) -> None:
        """Folders first, rows last: a row's files are there."""
        target = make_private_folder(self._registry.home / kind)
        for id_ in ids:
            with contextlib.suppress(FileNotFoundError):  # a job that left no files
                if not (target / id_).exists():
                    (self._folder / kind / id_).rename(target / id_)
