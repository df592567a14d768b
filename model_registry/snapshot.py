"""The models as they were at one moment, and what names meant then. Immutable: any thread may read it, nothing is waited for.

What names and adapters mean is worked out once, when the snapshot is made: reading it is a look into a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from model_registry.aliases import adapter_folder
from model_registry.errors import ModelNotFound
from model_registry.names import Label, parse_label
from model_registry.records import LIVE, Attachment, Model, ModelVersion

_NO_FOLDERS: Mapping[str, Path] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class AttachedAdapter:
    """An adapter that can be served. base: the version that it was tuned on. folder: its weights, in PEFT's layout."""

    attachment: Attachment
    base: ModelVersion
    folder: Path


@dataclass(frozen=True, slots=True)
class Snapshot:
    """change_count: of models, in the database that it was read from. models: all, by name."""

    change_count: int
    models: Mapping[str, Model]
    _versions: Mapping[Label, ModelVersion] = field(init=False, repr=False, compare=False)
    _adapters: Mapping[Label, AttachedAdapter] = field(init=False, repr=False, compare=False)  # by MODEL:NAME
    _folders: Mapping[str, Mapping[str, Path]] = field(init=False, repr=False, compare=False)  # by the base's label, by name

    def __post_init__(self) -> None:
        versions = {label: version for model in self.models.values() for label, version in _named(model)}
        adapters = {
            Label(model.name, alias=each.name): attached
            for model in self.models.values()
            for each in model.adapters
            if (attached := _attached(each, versions)) is not None
        }
        folders: dict[str, dict[str, Path]] = {}
        for attached in adapters.values():
            folders.setdefault(attached.base.label, {})[attached.attachment.name] = attached.folder
        object.__setattr__(self, "_versions", versions)
        object.__setattr__(self, "_adapters", adapters)
        object.__setattr__(self, "_folders", {label: MappingProxyType(of_base) for label, of_base in folders.items()})

    def model(self, name: str) -> Model:
        """Raises ModelNotFound."""
        found = self.models.get(name)
        if found is None:
            raise ModelNotFound(self.why_missing(Label(name)))
        return found

    def resolve(self, name: str) -> ModelVersion:
        """`name` (what `live` points to), `name:NUMBER` or `name:alias`. Raises ModelNotFound."""
        return self.version_of(parse_label(name))

    def version_of(self, label: Label) -> ModelVersion:
        """Raises ModelNotFound."""
        found = self.find(label)
        if found is None:
            raise ModelNotFound(self.why_missing(label))
        return found

    def find(self, label: Label) -> ModelVersion | None:
        """The version that the label means; None where it means none."""
        return self._versions.get(label)

    def find_adapter(self, label: Label) -> AttachedAdapter | None:
        """The adapter that `MODEL:NAME` means; None where it means none that can be served."""
        return self._adapters.get(label)

    def adapter_folders(self, base: str) -> Mapping[str, Path]:
        """The adapters, by name, that were tuned on the version with this label (`name:NUMBER`)."""
        return self._folders.get(base, _NO_FOLDERS)

    def why_missing(self, label: Label) -> str:
        """What to tell of a label that `find` does not know: what there is instead."""
        model = self.models.get(label.name)
        if model is None:
            exist = ", ".join(self.models) if self.models else "none yet"
            return f"There is no model {label.name!r} here (there are: {exist}). Run `slmops pull {label.name}` to get it."
        names = [version.label for version in model.versions] + [f"{model.name}:{alias.name}" for alias in model.aliases]
        wanted = label.number if label.number is not None else label.alias_or_live
        return f"{model.name} has no version or alias {wanted}. It has: {', '.join(names)}."


def _named(model: Model) -> Iterator[tuple[Label, ModelVersion]]:
    """Every label that means a version of the model."""
    by_number = {version.number: version for version in model.versions}
    for number, version in by_number.items():
        yield Label(model.name, number=number), version
    for alias in model.aliases:
        if alias.number in by_number:
            yield Label(model.name, alias=alias.name), by_number[alias.number]
            if alias.name == LIVE:
                yield Label(model.name), by_number[alias.number]


def _attached(attachment: Attachment, versions: Mapping[Label, ModelVersion]) -> AttachedAdapter | None:
    """None for one whose weights or base are gone."""
    tuned = versions.get(parse_label(attachment.version))
    folder = None if tuned is None else adapter_folder(tuned)
    if tuned is None or folder is None:
        return None
    base = versions.get(parse_label(tuned.manifest.parent or attachment.model))
    return None if base is None else AttachedAdapter(attachment, base, folder)
