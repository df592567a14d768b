"""The models that requests may name, as they are now: of the registry, or those of the fake engine, which needs none.

Knows the registry; knows nothing of what is loaded. What is not a coroutine reads memory only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from model_registry.aliases import attachment_named
from model_registry.errors import ModelNotFound, UnsupportedModel
from model_registry.lineage import Lineage, lineage_of
from model_registry.names import Label
from model_registry.records import Attachment, ModelVersion
from server.inference import resolution
from server.inference.fine_tuned_names import as_registered
from server.inference.resolution import Resolution, ServedModel, Unresolved
from server.principal import LOCAL, Principal

if TYPE_CHECKING:
    from model_registry.snapshot import Snapshot
    from server.storage.snapshots import RegistryAccess


@dataclass(frozen=True, slots=True)
class Attached:
    """An adapter, and the base as it is loaded now."""

    attachment: Attachment
    base: ServedModel


class ServedModels(Protocol):
    def resolve(self, name: str, principal: Principal = LOCAL) -> Resolution | Unresolved:
        """What the name means for a request of this principal."""

    def listed(self) -> Sequence[Resolution]:
        """Every model under its bare name, then every adapter."""

    def lineage(self, name: str) -> tuple[ModelVersion, Lineage]:
        """The version of that name, and the tree that it stands in. Raises ModelNotFound, UnsupportedModel."""

    def attached(self, model: str) -> Sequence[Attached]:
        """The model's adapters. Raises ModelNotFound."""

    async def refresh(self) -> None:
        """What any process wrote before this call is known when it returns."""

    async def remove(self, label: str) -> None:
        """The whole model of this version (`name:NUMBER`).

        Raises ModelNotFound; ModelInUse while a process works with it; RegistryBusy; UnsupportedModel for the fake engine's.
        """

    async def attach(self, model: str, name: str, version: str, deadline_s: float | None = None) -> Attached:
        """Serves `model:name` from now on. deadline_s: by time.monotonic; after it no other writer is waited for.

        Raises InvalidName, ModelNotFound, UnsupportedModel, RegistryBusy.
        """

    async def detach(self, model: str, name: str, deadline_s: float | None = None) -> Attached:
        """Raises ModelNotFound, RegistryBusy."""


class RegistryModels:
    """The models of the registry: by name, `name:number`, `name:alias` or `name:adapter`."""

    def __init__(self, access: RegistryAccess) -> None:
        self._access = access

    @property
    def _snapshot(self) -> Snapshot:
        return self._access.snapshot

    def resolve(self, name: str, principal: Principal = LOCAL) -> Resolution | Unresolved:
        return resolution.resolve(self._snapshot, name, principal)

    def listed(self) -> Sequence[Resolution]:
        return resolution.listed(self._snapshot)

    def lineage(self, name: str) -> tuple[ModelVersion, Lineage]:
        snapshot = self._snapshot
        version = snapshot.resolve(as_registered(name))
        return version, lineage_of(tuple(snapshot.models.values()), version)

    def attached(self, model: str) -> Sequence[Attached]:
        snapshot = self._snapshot
        return [_with_base(snapshot, each) for each in snapshot.model(model).adapters]

    async def refresh(self) -> None:
        await self._access.refresh()

    async def remove(self, label: str) -> None:
        model = label.partition(":")[0]
        await self._access.write(lambda registry: registry.remove(model))

    async def attach(self, model: str, name: str, version: str, deadline_s: float | None = None) -> Attached:
        tuned = as_registered(version)
        made = await self._access.write(lambda registry: registry.attach(model, name, tuned), deadline_s)
        return _with_base(self._snapshot, made)

    async def detach(self, model: str, name: str, deadline_s: float | None = None) -> Attached:
        before = self._snapshot
        gone = _with_base(before, attachment_named(before.model(model), name))
        await self._access.write(lambda registry: registry.detach(model, name), deadline_s)
        now = self._snapshot
        return Attached(gone.attachment, resolution.served(now, now.resolve(gone.base.label)))


class FakeModels:
    """Models without any file, for `--engine fake`. names: each as `name` or `name:number`."""

    def __init__(self, names: Iterable[str]) -> None:
        labels = [name if ":" in name else f"{name}:1" for name in names]
        self._by_bare: dict[str, str] = {}
        for label in labels:
            self._by_bare.setdefault(label.partition(":")[0], label)
        self._labels = self._by_bare | {label: label for label in labels}
        self._created = int(time.time())

    def resolve(self, name: str, principal: Principal = LOCAL) -> Resolution | Unresolved:
        label = self._labels.get(name)
        if label is None:
            return Unresolved(name, self._why_missing(name))
        return Resolution(name, ServedModel(label, self._created), "model of the fake engine", principal=principal)

    def listed(self) -> Sequence[Resolution]:
        found = [self.resolve(name) for name in self._by_bare]
        return [each for each in found if isinstance(each, Resolution)]

    async def refresh(self) -> None:
        return

    async def remove(self, label: str) -> None:
        raise UnsupportedModel(f"{label} is the fake engine's: there is nothing to remove.")

    def lineage(self, name: str) -> tuple[ModelVersion, Lineage]:
        label = self._label(name)
        raise UnsupportedModel(f"{label} was made from nothing: it is the fake engine's. Serve without `--engine fake`.")

    def attached(self, model: str) -> Sequence[Attached]:
        self._label(model)
        return []

    async def attach(self, model: str, name: str, version: str, deadline_s: float | None = None) -> Attached:
        raise UnsupportedModel(f"{self._label(model)} takes no adapters: it is the fake engine's.")

    async def detach(self, model: str, name: str, deadline_s: float | None = None) -> Attached:
        raise ModelNotFound(f"{self._label(model)} has no adapter {name!r}.")

    def _label(self, name: str) -> str:
        """Raises ModelNotFound."""
        if name not in self._labels:
            raise ModelNotFound(self._why_missing(name))
        return self._labels[name]

    def _why_missing(self, name: str) -> str:
        return (
            f"There is no model {name!r} here: the fake engine serves only {', '.join(map(repr, self._by_bare))}. "
            f"Run `slmops pull {name}` and serve it without `--engine fake`."
        )


def _with_base(snapshot: Snapshot, attachment: Attachment) -> Attached:
    """Raises ModelNotFound when the base or the adapter's weights are gone."""
    found = snapshot.find_adapter(Label(attachment.model, alias=attachment.name))
    if found is None:
        raise ModelNotFound(f"{attachment.model}:{attachment.name} cannot be served: {attachment.version}, or its base, is gone.")
    return Attached(attachment, resolution.served(snapshot, found.base))
