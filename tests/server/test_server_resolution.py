"""What names mean: of versions, aliases, tuned models and adapters, from a snapshot of records, without files or a database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_registry.errors import ModelNotFound, UnsupportedModel
from model_registry.records import Alias, Attachment, GraphKind, Manifest, Model, ModelVersion, Precision, Variant, VariantRole
from model_registry.snapshot import Snapshot
from server.inference.fine_tuned_names import registered_name, written_name
from server.inference.resolution import Resolution, Unresolved, listed, resolve
from server.principal import LOCAL, Principal

MADE = datetime(2026, 1, 2, tzinfo=UTC)
KEY = Principal("key-1", "one", frozenset())
TUNED = registered_name("mine", "0123abcd")
WRITTEN = written_name("tiny", TUNED)
assert WRITTEN is not None


def version(model: str, number: int, *roles: VariantRole, parent: str | None = None) -> ModelVersion:
    variants = tuple(
        Variant(f"{role}-fp32", Precision.FP32, "cpu", Path(f"/{model}/{number}/{role}"), (), role, GraphKind.GQA)
        for role in roles or (VariantRole.SERVE,)
    )
    return ModelVersion(model, number, "0" * 64, MADE, Manifest("test", "test", "llama", 16, parent=parent), variants)


def model(name: str, *versions: ModelVersion, adapters: tuple[Attachment, ...] = (), **aliases: int) -> Model:
    pointers = tuple(Alias(name, alias, number) for alias, number in aliases.items())
    return Model(name, MADE, versions, pointers, adapters)


SUPPORT = Attachment("tiny", "support", "helper:1")
LOST = Attachment("tiny", "lost", "gone:1")
MODELS = (
    model("tiny", version("tiny", 1), version("tiny", 2), adapters=(SUPPORT, LOST), live=2, candidate=1),
    model("helper", version("helper", 1, VariantRole.ADAPTER, parent="tiny:1"), live=1),
    model("weights", version("weights", 1, VariantRole.CHECKPOINT), live=1),
    model(TUNED, version(TUNED, 1, VariantRole.SERVE, VariantRole.ADAPTER, parent="tiny:2"), live=1),
)
SNAPSHOT = Snapshot(1, {each.name: each for each in MODELS})


def found(name: str) -> Resolution:
    resolution = resolve(SNAPSHOT, name, KEY)
    assert isinstance(resolution, Resolution), resolution
    return resolution


@pytest.mark.parametrize(
    ("name", "label", "adapter", "reason"),
    [
        ("tiny", "tiny:2", None, "live of tiny"),
        ("tiny:live", "tiny:2", None, "live of tiny"),
        ("tiny:candidate", "tiny:1", None, "candidate of tiny"),
        ("tiny:1", "tiny:1", None, "version 1 of tiny"),
        ("tiny:support", "tiny:1", "support", "adapter support of tiny:1"),
        (WRITTEN, f"{TUNED}:1", None, f"fine-tuned name of {TUNED}:1"),
        (TUNED, f"{TUNED}:1", None, f"live of {TUNED}"),
    ],
)
def test_a_name_means_a_version_and_says_why(name: str, label: str, adapter: str | None, reason: str) -> None:
    resolution = found(name)
    assert (resolution.name, resolution.label, resolution.adapter, resolution.reason) == (name, label, adapter, reason)
    assert resolution.principal is KEY
    assert resolution.model.created == int(MADE.timestamp())


def test_a_base_is_loaded_with_the_adapters_that_were_tuned_on_it() -> None:
    assert dict(found("tiny:1").model.adapters) == {"support": Path(f"/helper/1/{VariantRole.ADAPTER}")}
    assert found("tiny:support").model == found("tiny:1").model
    assert not found("tiny:2").model.adapters


def test_only_what_an_engine_can_load_is_a_variant() -> None:
    assert [variant.provider_family for variant in found(TUNED).model.variants] == ["cpu"]


@pytest.mark.parametrize(
    "name",
    ["other", "tiny:3", "tiny:nosuch", "tiny:lost", f"{WRITTEN}:ckpt-step-8", WRITTEN.replace(":tiny:", ":other:"), "ft:tiny", ""],
)
def test_a_name_that_means_nothing_is_a_value(name: str) -> None:
    nothing = resolve(SNAPSHOT, name)
    assert isinstance(nothing, Unresolved)
    assert (nothing.name, nothing.exists) == (name, False)
    assert isinstance(nothing.error(), ModelNotFound)


def test_a_version_without_anything_to_load_exists_and_is_not_served() -> None:
    for name in ("weights", "helper:1"):
        nothing = resolve(SNAPSHOT, name)
        assert isinstance(nothing, Unresolved)
        assert nothing.exists
        assert isinstance(nothing.error(), UnsupportedModel)


def test_lists_name_what_is_served_as_clients_know_it() -> None:
    assert [(each.name, each.label) for each in listed(SNAPSHOT)] == [
        ("tiny", "tiny:2"),
        (WRITTEN, f"{TUNED}:1"),
        ("tiny:support", "tiny:1"),
    ]
    assert {each.principal for each in listed(SNAPSHOT)} == {LOCAL}


def test_a_name_is_resolved_without_reading_the_models_again() -> None:
    """Else each request would walk all versions and adapters of a model."""

    class Unread(dict[str, Model]):
        def _refuse(self, *_: object) -> None:
            raise AssertionError("the snapshot's tables suffice")

        __getitem__ = get = values = items = __iter__ = _refuse  # type: ignore[assignment]

    snapshot = Snapshot(1, {each.name: each for each in MODELS})
    object.__setattr__(snapshot, "models", Unread())
    for name in ("tiny", "tiny:candidate", "tiny:1", "tiny:support", WRITTEN):
        assert isinstance(resolve(snapshot, name), Resolution)
