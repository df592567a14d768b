"""What the name in a request means for that request: a version, its adapter, and by which rule. Pure: it reads a snapshot.

One name may come to mean different versions for different requests (a split of an alias, the models of a key): that is decided
here, from the name and the principal. A name that means nothing is a value too; `Unresolved.error` is what a client gets of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_registry.errors import ModelNotFound, RegistryError, UnsupportedModel
from model_registry.names import Label, parse_label
from model_registry.records import DECODER, Capability, ModelVersion, Variant
from model_registry.snapshot import Snapshot
from server.inference.fine_tuned_names import CHECKPOINT, registered_of, written_name
from server.principal import LOCAL, Principal


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version as an engine loads it, whoever requests it, by whatever name. label: `name:NUMBER`; created: Unix seconds.

    variants: that an engine can load; none for the fake engine. capabilities: what the version allows, whichever engine loads it.
    adapters: PEFT folders by name, that the version is loaded with.
    """

    label: str
    created: int
    variants: tuple[Variant, ...] = ()
    capabilities: frozenset[Capability] = DECODER
    adapters: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a name means for one request. name: as the request has it, which answers repeat. adapter: of the model's adapters.

    reason: the rule that gave the name this meaning, for the log. principal: who makes the request.
    """

    name: str
    model: ServedModel
    reason: str
    adapter: str | None = None
    principal: Principal = LOCAL

    @property
    def label(self) -> str:
        """Of the version, `name:NUMBER`."""
        return self.model.label


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A name that means nothing that can be served. exists: whether there is such a version, so that no newer snapshot helps."""

    name: str
    message: str
    exists: bool = False

    def error(self) -> RegistryError:
        return UnsupportedModel(self.message) if self.exists else ModelNotFound(self.message)


def resolve(snapshot: Snapshot, name: str, principal: Principal = LOCAL) -> Resolution | Unresolved:
    """1. `ft:...:ckpt-step-N` is a checkpoint of a tuning, which is not served.
    2. `ft:BASE:local:SUFFIX:ID` is the live version of a tuned model, whose name this must be exactly.
    3. `MODEL`, `MODEL:NUMBER` and `MODEL:ALIAS` are versions.
    4. `MODEL:ADAPTER` is the version that the adapter was tuned on, with the adapter.
    """
    tuned, is_checkpoint, _ = name.partition(CHECKPOINT)
    if is_checkpoint and registered_of(tuned):
        message = f"Checkpoints of a tuning are not served. The tuned model is {tuned!r}, once its job has succeeded."
        return Unresolved(name, message)
    registered = registered_of(name)
    label = parse_label(registered or name)
    if (version := snapshot.find(label)) is not None:
        if registered is not None and listed_name(version) != name:
            return Unresolved(name, f"There is no model {name!r} here: did you mean {listed_name(version)!r}?")
        reason = _reason(label) if registered is None else f"fine-tuned name of {version.label}"
        return _resolution(snapshot, name, version, reason, principal)
    if (adapter := snapshot.find_adapter(label)) is not None:
        attachment = adapter.attachment
        reason = f"adapter {attachment.name} of {adapter.base.label}"
        return _resolution(snapshot, name, adapter.base, reason, principal, attachment.name)
    return Unresolved(name, snapshot.why_missing(label))


def listed(snapshot: Snapshot) -> Sequence[Resolution]:
    """Of every name that lists of models show: each model's live version, then each adapter."""
    models = snapshot.models.values()
    live = [version for model in models if (version := snapshot.find(Label(model.name))) is not None]
    names = [listed_name(version) for version in live]
    names += [f"{each.model}:{each.name}" for model in models for each in model.adapters]
    found = [resolve(snapshot, name) for name in names]
    return [each for each in found if isinstance(each, Resolution)]


def listed_name(version: ModelVersion) -> str:
    """A tuned model's is the one that OpenAI's clients know it by, `ft:...`."""
    base = (version.manifest.parent or "").partition(":")[0]
    return written_name(base, version.model) or version.model


def served(snapshot: Snapshot, version: ModelVersion) -> ServedModel:
    """The version, with all adapters that were tuned on it. Its variants may be none."""
    created = int(version.created_at.timestamp())
    adapters = snapshot.adapter_folders(version.label)
    return ServedModel(version.label, created, version.builds, version.manifest.capabilities, adapters)


def _resolution(
    snapshot: Snapshot, name: str, version: ModelVersion, reason: str, principal: Principal, adapter: str | None = None
) -> Resolution | Unresolved:
    model = served(snapshot, version)
    if not model.variants:
        message = f"{version.label} has no variant to load. Run `slmops rm {version.label}` and pull it again."
        return Unresolved(name, message, exists=True)
    return Resolution(name, model, reason, adapter, principal)


def _reason(label: Label) -> str:
    if label.number is not None:
        return f"version {label.number} of {label.name}"
    return f"{label.alias_or_live} of {label.name}"
