"""Settings, variants and the machine's providers to the candidates of a load. Machines are recorded ones; nothing is loaded."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_registry.decoder_memory import WORKING_BYTES
from model_registry.records import Artifact, GraphKind, Precision, Variant
from runtime.machine.provider_directory import ProviderDirectory
from runtime.pool.loaded_model import FOREVER, Candidate, LoadedModel, LoadSpec, ModelState
from runtime.pool.memory import MemoryEstimate
from runtime.protocol.errors import NotReady
from server.inference.load_plans import LoadPlans
from server.inference.resolution import ServedModel
from server.settings.daemon import Settings
from server.settings.models import ModelSettings

pytestmark = pytest.mark.api

DISCOVERIES = Path(__file__).parents[1] / "runtime/discoveries"
WEIGHTS_BYTES = 10 << 20
GENAI_CONFIG = {
    "model": {
        "type": "llama",
        "context_length": 1024,
        "vocab_size": 100,
        "eos_token_id": 2,
        "decoder": {
            "filename": "model.onnx",
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "head_size": 16,
            "inputs": {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
            "outputs": {"present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
        },
    },
    "search": {},
}
ROW_BYTES = 2 * 2 * 2 * 16 * 4 * 1024  # keys and values, layers, heads, head size, fp32, context


class Pool:
    """As far as plans look at it."""

    def __init__(self, *loaded: LoadedModel) -> None:
        self._loaded = loaded

    def loaded(self) -> tuple[LoadedModel, ...]:
        return self._loaded


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Variant]:
    def make(name: str, graph: GraphKind = GraphKind.GQA) -> Variant:
        """name: family and precision."""
        family, _, precision = name.rpartition("-")
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"0" * WEIGHTS_BYTES)
        (folder / "genai_config.json").write_text(json.dumps(GENAI_CONFIG))
        (folder / "tokenizer.json").write_text("{}")
        weights = Artifact("model.onnx", "0" * 64, WEIGHTS_BYTES)
        return Variant(name, Precision(precision), family, folder, (weights,), graph=graph)

    return make


@pytest.fixture
def plan(make_settings: Callable[..., Settings]) -> Callable[..., LoadSpec]:
    def make(*variants: Variant, machine: str | None = None, pool: Pool | None = None, **settings: Any) -> LoadSpec:
        """machine: the name of a recorded discovery; None: a query would fail."""
        child = "raise SystemExit('asked')" if machine is None else f"print(open({str(DISCOVERIES / machine)!r} + '.json').read())"
        directory = ProviderDirectory((sys.executable, "-c", child))
        plans = LoadPlans(make_settings(**{"engine": "auto"} | settings), directory, pool or Pool())
        return asyncio.run(plans.spec(ServedModel("m:1", 0, variants)))

    return make


def where(spec: LoadSpec) -> list[tuple[str, str, str]]:
    return [(each.variant, each.engine, each.provider.name) for each in spec.candidates]


def test_a_model_for_the_cpu_is_placed_without_querying_the_machine(
    plan: Callable[..., LoadSpec], variant: Callable[..., Variant]
) -> None:
    spec = plan(variant("cpu-int8"))
    assert where(spec) == [("cpu-int8", "onnx", "CPUExecutionProvider")]
    (candidate,) = spec.candidates
    assert candidate.memory == MemoryEstimate(int(WEIGHTS_BYTES * 1.15) + WORKING_BYTES, ROW_BYTES, 16 * ROW_BYTES)
    assert (candidate.place, candidate.folder.name) == ("host", "cpu-int8")
    assert "policy auto" in candidate.reason


def test_what_is_set_reaches_the_spec(plan: Callable[..., LoadSpec], variant: Callable[..., Variant]) -> None:
    spec = plan(variant("cpu-int8"), num_slots=2, replicas=3, models={"m": {"keep_alive": -1, "pin": True, "context_length": 512}})
    assert (spec.options.num_slots, spec.options.context_length, spec.replicas) == (2, 512, 3)
    assert (spec.keep_alive_s, spec.pinned) == (FOREVER, True)
    assert spec.candidates[0].memory.most_kv_bytes == 2 * ROW_BYTES // 2
    assert plan(variant("cpu-int4"), keep_alive=0).keep_alive_s == 0


def test_a_gpu_comes_first_and_the_cpu_is_what_is_left_when_it_fails(
    plan: Callable[..., LoadSpec], variant: Callable[..., Variant]
) -> None:
    variants = [variant("cpu-int8"), variant("cuda-int4")]
    gpu, cpu = (spec := plan(*variants, machine="nvidia_desktop")).candidates
    assert where(spec) == [("cuda-int4", "genai", "CUDAExecutionProvider"), ("cpu-int8", "onnx", "CPUExecutionProvider")]
    assert gpu.place.startswith("nvidia")
    assert gpu.memory == MemoryEstimate(WORKING_BYTES)  # its weights are not on the host
    assert gpu.place_bytes == cpu.memory.fixed_bytes + cpu.memory.least_kv_bytes
    assert where(plan(*variants, machine="server")) == [("cpu-int8", "onnx", "CPUExecutionProvider")]


def test_each_build_has_a_graph_of_its_own(plan: Callable[..., LoadSpec], variant: Callable[..., Variant]) -> None:
    spec = plan(variant("cuda-fp16", GraphKind.OTHER), variant("cpu-int8"), machine="nvidia_desktop")
    assert where(spec) == [("cuda-fp16", "genai", "CUDAExecutionProvider"), ("cpu-int8", "onnx", "CPUExecutionProvider")]
    assert spec.unused == ()


def test_a_build_that_this_machine_cannot_run_is_reported_of(
    plan: Callable[..., LoadSpec], variant: Callable[..., Variant]
) -> None:
    spec = plan(variant("cuda-fp16"), variant("cpu-int8"), machine="server")
    assert where(spec) == [("cpu-int8", "onnx", "CPUExecutionProvider")]
    assert [(each.variant, each.provider) for each in spec.unused] == [("cuda-fp16", "cuda")]


def test_a_preference_that_names_providers_excludes_the_others(
    plan: Callable[..., LoadSpec], variant: Callable[..., Variant]
) -> None:
    variants = [variant("cpu-int8"), variant("cuda-int4")]
    assert [name for name, *_ in where(plan(*variants, machine="nvidia_desktop", providers="cpu"))] == ["cpu-int8"]
    with pytest.raises(NotReady, match=r"m:1 cannot be placed.*cuda: this machine has neither.*slmops providers") as refused:
        plan(*variants, machine="server", providers="cuda")
    assert refused.value.code == "no_provider"


def test_an_engine_that_is_requested_is_the_only_one(plan: Callable[..., LoadSpec], variant: Callable[..., Variant]) -> None:
    cpu = variant("cpu-int8")
    assert where(plan(cpu, machine="nvidia_desktop", engine="genai")) == [("cpu-int8", "genai", "CPUExecutionProvider")]
    with pytest.raises(NotReady, match="engine `onnx` runs `cpu-int4`"):
        plan(variant("cpu-int4", GraphKind.OTHER), machine="nvidia_desktop", engine="onnx")


def test_a_device_without_room_is_passed_over(plan: Callable[..., LoadSpec], variant: Callable[..., Variant]) -> None:
    variants = [variant("cpu-int8"), variant("cuda-int4")]
    gpu = plan(*variants, machine="nvidia_desktop").candidates[0]

    def full(label: str) -> Pool:
        taken = Candidate(gpu.folder, "genai", gpu.memory, gpu.provider, place=gpu.place, place_bytes=1 << 40)
        spec = LoadSpec(label, (taken,))
        return Pool(LoadedModel(spec, ModelState.READY, taken, (), (), 0, 0, False, 600, 0, None, None))

    assert [name for name, *_ in where(plan(*variants, machine="nvidia_desktop", pool=full("other:1")))] == ["cpu-int8"]
    reloaded = plan(*variants, machine="nvidia_desktop", pool=full("m:1"))  # it makes room for itself
    assert [name for name, *_ in where(reloaded)] == ["cuda-int4", "cpu-int8"]


def test_a_machine_that_cannot_be_queried_still_has_its_cpu(plan: Callable[..., LoadSpec], variant: Callable[..., Variant]) -> None:
    assert where(plan(variant("cpu-int8"), variant("cuda-int4"))) == [("cpu-int8", "onnx", "CPUExecutionProvider")]


def test_a_folder_that_says_nothing_of_its_kv_is_charged_for_its_files(
    plan: Callable[..., LoadSpec], variant: Callable[..., Variant]
) -> None:
    broken = variant("cpu-int8")
    (broken.folder / "genai_config.json").write_text("{}")
    assert plan(broken).candidates[0].memory == MemoryEstimate(WEIGHTS_BYTES)


def test_changes_hold_until_they_are_taken_back(make_settings: Callable[..., Settings]) -> None:
    plans = LoadPlans(make_settings(num_slots=2), ProviderDirectory(), Pool())
    take_back_threads = plans.change("m:1", ModelSettings(threads=3))
    take_back_slots = plans.change("m:1", ModelSettings(num_slots=4))

    def settings() -> tuple[int | None, int | None]:
        return plans.settings_of("m:1").num_slots, plans.settings_of("m:1").threads

    assert settings() == (4, 3)
    assert plans.settings_of("other:1").num_slots == 2
    take_back_threads()
    assert settings() == (4, 0), "what was changed since stays"
    take_back_slots()
    assert settings() == (2, 0)
