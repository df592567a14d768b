"""The models as they were at one moment, and what names meant then. Immutable: any thread may read it, nothing is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model_registry.errors import ModelNotFound
from model_registry.names import Label, parse_label
from model_registry.records import Model, ModelVersion


@dataclass(frozen=True, slots=True)
class Snapshot:
    """change_count: of models, in the database that it was read from. models: all, by name."""

    change_count: int
    models: Mapping[str, Model]

    def model(self, name: str) -> Model:
        """Raises ModelNotFound."""
        found = self.models.get(name)
        if found is None:
            exist = ", ".join(self.models) if self.models else "none yet"
            raise ModelNotFound(f"There is no model {name!r} here (there are: {exist}). Run `slmops pull {name}` to get it.")
        return found

    def resolve(self, name: str) -> ModelVersion:
        """`name` (what `live` points to), `name:NUMBER` or `name:alias`. Raises ModelNotFound, InvalidName."""
        return self.version_of(parse_label(name))

    def version_of(self, label: Label) -> ModelVersion:
        """Raises ModelNotFound."""
        model = self.model(label.name)
        number = label.number
        if number is None:
            number = next((alias.number for alias in model.aliases if alias.name == label.alias_or_live), None)
        for version in model.versions:
            if version.number == number:
                return version
        exist = [version.label for version in model.versions] + [f"{model.name}:{alias.name}" for alias in model.aliases]
        wanted = label.number if label.number is not None else label.alias_or_live
        raise ModelNotFound(f"{model.name} has no version or alias {wanted}. It has: {', '.join(exist)}.")
