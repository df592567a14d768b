"""What names of a model mean: aliases of its versions, and adapters that it is served with. Pure decisions on records.

`live` is what a bare name means; `previous` is what `live` was, for a quick way back. An adapter belongs to the very version that
it was tuned on: its matrices mean nothing beside other weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from model_registry.errors import InvalidName, ModelInUse, ModelNotFound, NameTaken, UnsupportedModel
from model_registry.records import LIVE, Alias, Attachment, Model, ModelVersion, VariantRole


def plan_attachment(model: Model, name: str, tuned: ModelVersion) -> Attachment:
    """Raises InvalidName when the name means something else already, UnsupportedModel when the version does not fit."""
    if any(alias.name == name for alias in model.aliases):
        raise InvalidName(f"{model.name}:{name} is an alias already. Choose another name for the adapter.")
    if any(each.name == name for each in model.adapters):
        raise InvalidName(f"{model.name} has an adapter {name!r} already. Detach it first, or choose another name.")
    folder_of(tuned)
    parent = tuned.manifest.parent or ""
    if parent.partition(":")[0] != model.name:
        raise UnsupportedModel(
            f"{tuned.label} was tuned on {parent or 'nothing'}, so its adapter cannot be served on {model.name}."
        )
    if parent not in {version.label for version in model.versions}:
        raise UnsupportedModel(f"{tuned.label} was tuned on {parent}, which is gone. Tune again, on a version that is there.")
    return Attachment(model.name, name, tuned.label)


def check_alias_is_free(model: Model, alias: str) -> None:
    """Raises NameTaken when an adapter has the name: the alias would hide it."""
    if any(each.name == alias for each in model.adapters):
        raise NameTaken(f"{model.name}:{alias} is an adapter. Detach it first, or choose another name for the alias.")


def plan_detachments(model: Model, to_delete: Sequence[ModelVersion], models: Mapping[str, Model]) -> list[Attachment]:
    """Adapters that go with versions of the model: those that were tuned on them."""
    labels = {version.label for version in to_delete}
    versions = {version.label: version for each in models.values() for version in each.versions}
    return [each for each in model.adapters if versions[each.version].manifest.parent in labels]


def attachment_named(model: Model, name: str) -> Attachment:
    """Raises ModelNotFound."""
    for each in model.adapters:
        if each.name == name:
            return each
    exist = ", ".join(each.name for each in model.adapters) or "none"
    raise ModelNotFound(f"{model.name} has no adapter {name!r}. It has: {exist}.")


def folder_of(tuned: ModelVersion) -> Path:
    """The folder of the version's adapter. Raises UnsupportedModel when it has none."""
    folder = adapter_folder(tuned)
    if folder is None:
        raise UnsupportedModel(f"{tuned.label} has no adapter. Name a version that a LoRA or DoRA tuning made.")
    return folder


def adapter_folder(tuned: ModelVersion) -> Path | None:
    """Of the version's adapter; None when it has none."""
    adapter = tuned.first(VariantRole.ADAPTER)
    return None if adapter is None else adapter.folder


PREVIOUS = "previous"


def plan_point(aliases: Sequence[Alias], model: str, name: str, number: int, weight: float = 1.0) -> tuple[Alias, ...]:
    """`name` points to `number`; when that moves `live`, `previous` points to where `live` was."""
    by_name = {alias.name: alias for alias in aliases}
    old = by_name.get(name)
    if name == LIVE and old is not None and old.number != number:
        by_name[PREVIOUS] = Alias(model, PREVIOUS, old.number)
    by_name[name] = Alias(model, name, number, weight)
    return tuple(by_name.values())


def alias_named(model: Model, name: str) -> Alias:
    """Raises ModelNotFound."""
    for each in model.aliases:
        if each.name == name:
            return each
    exist = ", ".join(each.name for each in model.aliases)
    raise ModelNotFound(f"{model.name} has no alias {name!r}. It has: {exist}.")


def plan_alias_removal(aliases: Sequence[Alias], gone: Alias) -> tuple[Alias, ...]:
    """The others. Raises ModelInUse for `live`, which is what the bare name means."""
    if gone.name == LIVE:
        raise ModelInUse(
            f"{gone.model}:{LIVE} is what the name {gone.model} means, and stays. Point it to another version instead."
        )
    return tuple(each for each in aliases if each != gone)


def plan_removal(aliases: Sequence[Alias], number: int, remaining: Collection[int]) -> tuple[Alias, ...]:
    """Version `number` goes. `live` falls back to `previous`, else to the newest left; other aliases to it go."""
    kept = {alias.name: alias for alias in aliases if alias.number in remaining}
    live = next((alias for alias in aliases if alias.name == LIVE), None)
    if live is not None and live.number == number and remaining:
        fallback = kept.pop(PREVIOUS, None)
        kept[LIVE] = Alias(live.model, LIVE, fallback.number if fallback else max(remaining))
    return tuple(kept.values())


def plan_restored_aliases(here: Model | None, saved: Sequence[Alias], numbers: Mapping[int, int]) -> tuple[Alias, ...]:
    """The aliases that are here, and those saved whose names mean nothing here. numbers: what a saved number is here; not empty.

    A model always has `live`: the newest version, when a backup brings back only others than the one it pointed to.
    """
    taken = {alias.name for alias in here.aliases} | {each.name for each in here.adapters} if here else set()
    added = [
        Alias(alias.model, alias.name, numbers[alias.number], alias.weight)
        for alias in saved
        if alias.number in numbers and alias.name not in taken
    ]
    pointers = (*(here.aliases if here else ()), *added)
    if all(alias.name != LIVE for alias in pointers):
        pointers = (*pointers, Alias(saved[0].model, LIVE, max(numbers.values())))
    return pointers


def check_unused(model: Model, to_delete: Sequence[ModelVersion], in_use: Collection[str], *, whole: bool) -> None:
    """Raises ModelInUse when one of the versions is in use, or an alias points to it. whole: the whole model is to go."""
    loaded = [version.label for version in to_delete if version.label in in_use]
    if loaded:
        raise ModelInUse(f"{', '.join(loaded)} is in use. Run `slmops stop {model.name}`, or end the job, or force it.")
    numbers = {version.number for version in to_delete}
    pointing = [alias.name for alias in model.aliases if alias.number in numbers]
    if pointing and not whole:
        raise ModelInUse(
            f"{to_delete[0].label} is what the alias {', '.join(pointing)} points to. Point the alias elsewhere, remove "
            f"the whole model with `slmops rm {model.name}`, or force the removal."
        )
