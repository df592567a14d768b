"""The settings of one model: their precedence, the options of its worker, the providers that can be chosen."""

from __future__ import annotations

import pytest
from pydantic import ByteSize, ValidationError

from runtime.machine.placement import Policy
from runtime.protocol.messages import EngineOptions
from server.settings.models import ModelSettings

pytestmark = pytest.mark.unit


def test_what_is_null_is_taken_from_beneath() -> None:
    beneath = ModelSettings(num_slots=2, threads=2, pin=True, keep_alive="1h")
    over = ModelSettings(num_slots=3, pin=False, keep_alive=0).over(beneath)
    assert over == ModelSettings(num_slots=3, threads=2, pin=False, keep_alive=0)


def test_a_worker_is_given_what_is_set_and_defaults_for_the_rest() -> None:
    assert ModelSettings().engine_options() == EngineOptions()
    assert ModelSettings(pin=True, keep_alive=5, replicas=2).engine_options() == EngineOptions()
    set_ = ModelSettings(num_slots=2, prefix_cache_bytes=ByteSize(0), kv_budget_bytes="1MiB", max_waiting=5)
    assert set_.engine_options() == EngineOptions(num_slots=2, prefix_cache_bytes=0, kv_budget_bytes=1 << 20, max_waiting=5)
    assert type(set_.engine_options().kv_budget_bytes) is int  # a frame holds no ByteSize


@pytest.mark.parametrize(
    ("written", "preference"),
    [
        (None, Policy.AUTO),
        ("auto", Policy.AUTO),
        ("min_power", Policy.MIN_POWER),
        (["max_performance"], Policy.MAX_PERFORMANCE),
        ("cuda, cpu", ("cuda", "cpu")),
        (["cuda:1", "cpu"], ("cuda:1", "cpu")),
    ],
)
def test_providers_are_a_policy_or_names_in_order(written: object, preference: object) -> None:
    assert ModelSettings(providers=written).preference() == preference


@pytest.mark.parametrize("written", ["abacus", "cpu,abacus:1", "auto,cpu", "cpu,min_power", "", []])
def test_other_providers_are_refused_with_those_there_are(written: object) -> None:
    with pytest.raises(ValidationError, match=r"it is one of auto, .*, or providers in order: cpu, cuda, "):
        ModelSettings(providers=written)
