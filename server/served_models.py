"""Which models requests may name: a name resolves to a version and its variants, of which an engine loads one.

Knows the registry; knows nothing of what is loaded. `FakeModels` stands in when the engine needs no model. What is not a coroutine
reads memory only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from model_registry.adapters import attachment_named, folder_of
from model_registry.errors import ModelNotFound, UnsupportedModel
from model_registry.lineage import Lineage, lineage_of
from model_registry.records import DECODER, LIVE, Attachment, Capability, Model, ModelVersion, Variant
from server.fine_tuned_names import CHECKPOINT, as_registered, registered_of, written_name

if TYPE_CHECKING:
    from model_registry.snapshot import Snapshot
    from server.registry_access import RegistryAccess

_OWNER = "slmops"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that was asked, and what it means now. label: `name:number`; created: Unix seconds.

    variants: that an engine can load; none for the fake engine. capabilities: what the version allows, whichever engine loads it.
    adapters: PEFT folders by name, that the version is loaded with; adapter: the one that was asked for.
    """

    id: str
    label: str
    created: int
    variants: tuple[Variant, ...] = ()
    capabilities: frozenset[Capability] = DECODER
    owner: str = _OWNER
    adapters: Mapping[str, Path] = field(default_factory=dict)
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """An adapter, and the base as it is loaded now."""

    attachment: Attachment
    base: ServedModel


class ServedModels(Protocol):
    def resolve(self, name: str) -> ServedModel:
        """Raises ModelNotFound, UnsupportedModel."""

    def listed(self) -> Sequence[ServedModel]:
        """Every model under its bare name."""

    def lineage(self, name: str) -> tuple[ModelVersion, Lineage]:
        """The version of that name, and the tree that it stands in. Raises as `resolve` does."""

    def attached(self, model: str) -> Sequence[Attached]:
        """The model's adapters. Raises ModelNotFound."""

    async def refresh(self) -> None:
        """What any process wrote before this call is known when it returns."""

    async def remove(self, name: str) -> None:
        """The whole model. Raises ModelNotFound; ModelInUse while a process works with it; RegistryBusy."""

    async def attach(self, model: str, name: str, version: str, deadline_s: float | None = None) -> Attached:
        """From now on `model:name` is served. deadline_s: of time.monotonic, after which no other writer is waited for.

        Raises InvalidName, ModelNotFound, UnsupportedModel, RegistryBusy.
        """

    async def detach(self, model: str, name: str, deadline_s: float | None = None) -> Attached:
        """Raises ModelNotFound, RegistryBusy."""


class RegistryModels:
    """The models of the registry: by name, `name:number`, `name:alias` or `name:adapter`."""

    def __init__(self, access: RegistryAccess) -> None:
        self._access = access

    @property
    def _now(self) -> SnapshotModels:
        return SnapshotModels(self._access.snapshot)

    def resolve(self, name: str) -> ServedModel:
        return self._now.resolve(name)

    def listed(self) -> Sequence[ServedModel]:
        return self._now.listed()

    def lineage(self, name: str) -> tuple[ModelVersion, Lineage]:
        return self._now.lineage(name)

    def attached(self, model: str) -> Sequence[Attached]:
        return self._now.attached(model)

    async def refresh(self) -> None:
        await self._access.refresh()

    async def remove(self, name: str) -> None:
        model = self.resolve(name).label.partition(":")[0]
        await self._access.write(lambda registry: registry.remove(model))

    async def attach(self, model: str, name: str, version: str, deadline_s: float | None = None) -> Attached:
        tuned = as_registered(version)
        made = await self._access.write(lambda registry: registry.attach(model, name, tuned), deadline_s)
        return self._now.with_base(made)

    async def detach(self, model: str, name: str, deadline_s: float | None = None) -> Attached:
        gone = self._now.with_base(attachment_named(self._access.snapshot.model(model), name))
        await self._access.write(lambda registry: registry.detach(model, name), deadline_s)
        return Attached(gone.attachment, self.resolve(gone.base.label))


@dataclass(frozen=True, slots=True)
class SnapshotModels:
    """What names meant at the moment of one snapshot."""

    snapshot: Snapshot

    def resolve(self, name: str) -> ServedModel:
        """A tuned model also by the name that OpenAI's clients know it by, `ft:...`."""
        tuned, is_checkpoint, _ = name.partition(CHECKPOINT)
        if is_checkpoint and registered_of(tuned):
            raise ModelNotFound(
                f"Checkpoints of a tuning are not served. The tuned model is {tuned!r}, once its job has succeeded."
            )
        registered = registered_of(name)
        try:
            version = self.snapshot.resolve(registered or name)
        except ModelNotFound:
            adapted = self._adapted(name)
            if adapted is None:
                raise
            return adapted
        if registered is not None and _listed_name(version) != name:
            raise ModelNotFound(f"There is no model {name!r} here: did you mean {_listed_name(version)!r}?")
        return self._served(name, version)

    def listed(self) -> Sequence[ServedModel]:
        models = self.snapshot.models.values()
        versions = [version for model in models if (version := _live(model)) and version.builds]
        live = [self._served(_listed_name(version), version) for version in versions]
        return live + [self._with_adapter(each) for model in models for each in model.adapters]

    def lineage(self, name: str) -> tuple[ModelVersion, Lineage]:
        version = self.snapshot.resolve(as_registered(name))
        return version, lineage_of(tuple(self.snapshot.models.values()), version)

    def attached(self, model: str) -> Sequence[Attached]:
        return [self.with_base(each) for each in self.snapshot.model(model).adapters]

    def with_base(self, attachment: Attachment) -> Attached:
        """Raises ModelNotFound when the base is gone."""
        return Attached(attachment, self.resolve(self._base_of(attachment)))

    def _adapted(self, name: str) -> ServedModel | None:
        """By `model:adapter`. None when it is no adapter's name."""
        model, _, adapter = name.partition(":")
        known = self.snapshot.models.get(model)
        found = [each for each in known.adapters if each.name == adapter] if known else []
        return self._with_adapter(found[0]) if found else None

    def _with_adapter(self, attachment: Attachment) -> ServedModel:
        base = self.resolve(self._base_of(attachment))
        return replace(base, id=f"{attachment.model}:{attachment.name}", adapter=attachment.name)

    def _base_of(self, attachment: Attachment) -> str:
        """The version that the adapter was tuned on."""
        return self.snapshot.resolve(attachment.version).manifest.parent or attachment.model

    def _served(self, name: str, version: ModelVersion) -> ServedModel:
        attached = self.snapshot.model(version.model).adapters
        mine = [each for each in attached if self._base_of(each) == version.label]
        adapters = {each.name: folder_of(self.snapshot.resolve(each.version)) for each in mine}
        return replace(_served(name, version), adapters=adapters)


class FakeModels:
    """Models without any file, for `--engine fake`. names: each as `name` or `name:number`."""

    def __init__(self, names: Iterable[str]) -> None:
        labels = [name if ":" in name else f"{name}:1" for name in names]
        self._by_bare: dict[str, str] = {}
        for label in labels:
            self._by_bare.setdefault(label.partition(":")[0], label)
        self._labels = self._by_bare | {label: label for label in labels}
        self._created = int(time.time())

    def resolve(self, name: str) -> ServedModel:
        if name not in self._labels:
            raise ModelNotFound(
                f"There is no model {name!r} here: the fake engine serves only {', '.join(map(repr, self._by_bare))}. "
                f"Run `slmops pull {name}` and serve it without `--engine fake`."
            )
        return ServedModel(name, self._labels[name], self._created)

    def listed(self) -> Sequence[ServedModel]:
        return [self.resolve(name) for name in self._by_bare]

    async def refresh(self) -> None:
        return

    async def remove(self, name: str) -> None:
        raise UnsupportedModel(f"{self.resolve(name).label} is the fake engine's: there is nothing to remove.")

    def lineage(self, name: str) -> tuple[ModelVersion, Lineage]:
        label = self.resolve(name).label
        raise UnsupportedModel(f"{label} was made from nothing: it is the fake engine's. Serve without `--engine fake`.")

    def attached(self, model: str) -> Sequence[Attached]:
        self.resolve(model)
        return []

    async def attach(self, model: str, name: str, version: str, deadline_s: float | None = None) -> Attached:
        raise UnsupportedModel(f"{self.resolve(model).label} takes no adapters: it is the fake engine's.")

    async def detach(self, model: str, name: str, deadline_s: float | None = None) -> Attached:
        raise ModelNotFound(f"{self.resolve(model).label} has no adapter {name!r}.")


def _live(model: Model) -> ModelVersion | None:
    number = next((alias.number for alias in model.aliases if alias.name == LIVE), None)
    return next((version for version in model.versions if version.number == number), None)


def _listed_name(version: ModelVersion) -> str:
    base = (version.manifest.parent or "").partition(":")[0]
    return written_name(base, version.model) or version.model


def _served(name: str, version: ModelVersion) -> ServedModel:
    if not version.builds:
        raise UnsupportedModel(f"{version.label} has no variant to load. Run `slmops rm {version.label}` and pull it again.")
    created = int(version.created_at.timestamp())
    return ServedModel(name, version.label, created, version.builds, version.manifest.capabilities)
