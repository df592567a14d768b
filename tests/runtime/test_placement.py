"""Placement, on recorded machines: which variant on which provider by which engine, in which order, and why not elsewhere."""

from __future__ import annotations

import dataclasses

import pytest

from model_registry.records import GraphKind
from runtime.machine.execution_provider import HOST, KNOWN, DeviceKind, ExecutionProvider
from runtime.machine.placement import PlacedVariant, Placement, Policy, Preference, plan_placement
from tests.runtime.recorded_discoveries import provider, providers_of

GIB = 1 << 30


def variant(name: str, graph: GraphKind = GraphKind.GQA, needed_bytes: int = GIB) -> PlacedVariant:
    family, _, precision = name.rpartition("-")
    return PlacedVariant(name, family, precision, graph, needed_bytes)


CPU = variant("cpu-int8")
EVERY_FAMILY = [variant(f"{known.short}-int4", GraphKind.GQA) for known in KNOWN]


def chosen(placement: Placement) -> list[str]:
    return [choice.short for choice in placement.choices]


def place(
    machine: str, variants: list[PlacedVariant], preference: Preference = Policy.AUTO, engine: str | None = None
) -> Placement:
    return plan_placement(variants, providers_of(machine), {}, preference, engine)


# ---- the order of a policy, for a model that is built for everything ----


@pytest.mark.parametrize(
    ("machine", "policy", "order"),
    [
        ("nvidia_desktop", Policy.AUTO, ["cuda", "cpu"]),
        ("nvidia_desktop", Policy.MAX_PERFORMANCE, ["cuda", "cpu"]),
        ("nvidia_desktop", Policy.MAX_EFFICIENCY, ["cpu", "cuda"]),
        ("nvidia_desktop", Policy.MIN_POWER, ["cpu", "cuda"]),
        ("intel_laptop", Policy.AUTO, ["cpu", "openvino", "openvino:1"]),
        ("intel_laptop", Policy.MAX_PERFORMANCE, ["openvino:1", "cpu", "openvino"]),
        ("intel_laptop", Policy.MAX_EFFICIENCY, ["openvino", "cpu", "openvino:1"]),
        ("intel_laptop", Policy.MIN_POWER, ["openvino", "cpu", "openvino:1"]),
        ("qualcomm_laptop", Policy.AUTO, ["cpu", "qnn"]),
        ("qualcomm_laptop", Policy.MAX_PERFORMANCE, ["cpu", "qnn"]),
        ("qualcomm_laptop", Policy.MAX_EFFICIENCY, ["qnn", "cpu"]),
        ("qualcomm_laptop", Policy.MIN_POWER, ["qnn", "cpu"]),
        ("ryzen_ai_laptop", Policy.AUTO, ["cpu", "vitisai", "directml"]),
        ("ryzen_ai_laptop", Policy.MAX_PERFORMANCE, ["directml", "cpu", "vitisai"]),
        ("ryzen_ai_laptop", Policy.MAX_EFFICIENCY, ["vitisai", "cpu", "directml"]),
        ("ryzen_ai_laptop", Policy.MIN_POWER, ["vitisai", "cpu", "directml"]),
        ("mac", Policy.AUTO, ["cpu", "webgpu"]),
        ("mac", Policy.MAX_PERFORMANCE, ["webgpu", "cpu"]),
        ("mac", Policy.MAX_EFFICIENCY, ["cpu", "webgpu"]),
        ("mac", Policy.MIN_POWER, ["cpu", "webgpu"]),
        *((name, policy, ["cpu"]) for name in ("server", "server_with_plugins") for policy in Policy),
    ],
)
def test_a_policy_orders_the_devices(machine: str, policy: Policy, order: list[str]) -> None:
    assert chosen(place(machine, EVERY_FAMILY, policy)) == order


def gpu(short: str, *, discrete: bool, memory_bytes: int = 8 * GIB, index: int = 0) -> ExecutionProvider:
    memory = f"x:{index}" if discrete else HOST
    return ExecutionProvider(short, short, DeviceKind.GPU, short, "x", index, memory, memory_bytes, discrete, engines=("genai",))


@pytest.mark.parametrize(
    ("policy", "order"),
    [
        (Policy.MAX_PERFORMANCE, ["cuda:1", "cuda", "webgpu", "openvino"]),
        (Policy.MAX_EFFICIENCY, ["cuda:1", "cuda", "webgpu", "openvino"]),
        (Policy.MIN_POWER, ["openvino", "cuda:1", "cuda", "webgpu"]),
    ],
)
def test_among_gpus_memory_of_its_own_then_its_vendors_provider_then_more_memory(policy: Policy, order: list[str]) -> None:
    gpus = [
        gpu("webgpu", discrete=True, memory_bytes=24 * GIB),
        gpu("openvino", discrete=False),
        gpu("cuda", discrete=True, memory_bytes=12 * GIB),
        gpu("cuda", discrete=True, memory_bytes=24 * GIB, index=1),
    ]
    assert chosen(plan_placement(EVERY_FAMILY, gpus, {}, policy)) == order


def test_of_several_variants_for_one_provider_the_first_that_fits_is_best() -> None:
    variants = [variant("cpu-fp32", needed_bytes=4 * GIB), variant("cpu-int8"), variant("cpu-int4")]
    placement = plan_placement(variants, providers_of("server"), {HOST: 2 * GIB})
    assert [choice.variant for choice in placement.choices] == ["cpu-int8", "cpu-int4"]
    assert [rejection.variant for rejection in placement.rejected] == ["cpu-fp32"]


# ---- families: a variant runs where it was built for ----


def test_a_model_built_for_the_cpu_stays_there_and_says_why() -> None:
    placement = place("nvidia_desktop", [CPU], Policy.MAX_PERFORMANCE)
    assert chosen(placement) == ["cpu"]
    why = next(rejection.why for rejection in placement.rejected if rejection.provider == "cuda")
    assert "`cpu-int8` is built for cpu" in why
    assert "fp16 and bf16 only" in why


def test_every_provider_has_a_reason_why_others_do_not_run_its_variants() -> None:
    two = [gpu("cuda", discrete=True), gpu("webgpu", discrete=True)]
    why = {each.variant: each.why for each in plan_placement(EVERY_FAMILY, two, {}).rejected}
    assert len(why) == len(KNOWN)
    assert not [each for each in why.values() if "not known" in each]


# ---- engines ----


@pytest.mark.parametrize(
    ("machine", "candidate", "engine", "expected"),
    [
        ("server", variant("cpu-int8", GraphKind.GQA), None, ["onnx"]),
        ("server", variant("cpu-int8", GraphKind.OTHER), None, ["genai"]),
        ("server", variant("cpu-int8", GraphKind.GQA), "genai", ["genai"]),
        ("server", variant("cpu-int8", GraphKind.GQA), "foundry", ["foundry"]),
        ("server", variant("cpu-int8", GraphKind.OTHER), "onnx", []),
        ("nvidia_desktop", variant("cuda-fp16", GraphKind.GQA), None, ["genai"]),
        ("nvidia_desktop", variant("cuda-fp16", GraphKind.PAGED), None, ["genai"]),
        ("nvidia_desktop", variant("cuda-fp16", GraphKind.GQA), "onnx", []),
        ("ryzen_ai_laptop", variant("cpu-int8", GraphKind.GQA), "foundry", []),
    ],
)
def test_the_graph_the_provider_and_the_setting_choose_the_engine(
    machine: str, candidate: PlacedVariant, engine: str | None, expected: list[str]
) -> None:
    placement = place(machine, [candidate], engine=engine)
    assert [choice.engine for choice in placement.choices] == expected
    if not expected:
        short = candidate.provider_family
        why = next(each.why for each in placement.rejected if each.provider == short)
        assert f"graph: {candidate.graph.value}" in why


def test_paged_attention_stays_on_cuda() -> None:
    assert "runs on cuda only" in place("server", [variant("cpu-fp16", GraphKind.PAGED)]).refusal()


# ---- budgets ----


def test_a_device_without_room_falls_through_with_the_arithmetic() -> None:
    variants = [variant("cuda-fp16", needed_bytes=3 * GIB), variant("cpu-int8", needed_bytes=2 * GIB)]
    free = {"nvidia:0": 2 * GIB, HOST: 8 * GIB}
    placement = plan_placement(variants, providers_of("nvidia_desktop"), free)
    assert chosen(placement) == ["cpu"]
    why = next(each.why for each in placement.rejected if each.provider == "cuda" and each.variant == "cuda-fp16")
    assert why == "`cuda-fp16` needs 3.0 GiB, and 2.0 GiB of memory nvidia:0 are free"


def test_a_device_without_memory_of_its_own_takes_the_hosts() -> None:
    npu = plan_placement([variant("qnn-int4")], providers_of("qualcomm_laptop"), {HOST: GIB // 2}, ("qnn",))
    assert npu.choices == ()
    assert "0.5 GiB of memory host" in npu.refusal()


def test_exactly_what_is_free_is_enough_and_the_reason_says_the_numbers() -> None:
    placement = plan_placement([CPU], providers_of("server"), {HOST: GIB})
    assert placement.choices[0].reason == "policy auto: cpu on AMD EPYC by engine onnx; needs 1.0 GiB of 1.0 GiB free"


# ---- preferences by name ----


def test_a_preference_is_followed_in_order_and_nothing_else_is_used() -> None:
    assert chosen(place("intel_laptop", EVERY_FAMILY, ("openvino:1", "cpu"))) == ["openvino:1", "cpu"]
    assert chosen(place("intel_laptop", EVERY_FAMILY, ("openvino",))) == ["openvino", "openvino:1"]
    assert chosen(place("intel_laptop", EVERY_FAMILY, ("cpu", "cpu"))) == ["cpu"]


def test_a_fixed_provider_that_is_not_usable_says_how_to_make_it_so() -> None:
    placement = place("nvidia_desktop", EVERY_FAMILY, ("trt-rtx",))
    assert placement.choices == ()
    assert "trt-rtx: onnxruntime-ep-nv-tensorrt-rtx is not installed; pip install 'slmops[trt-rtx]'" in placement.refusal()


def test_a_fixed_provider_that_is_not_here_or_nowhere_says_so() -> None:
    assert "cuda: this machine has neither a device for it" in place("server", [CPU], ("cuda",)).refusal()
    assert "cuda:7: this machine" in place("nvidia_desktop", [CPU], ("cuda:7",)).refusal()
    assert "gpu: there is no provider of that name; choose among cpu, cuda, " in place("server", [CPU], ("gpu",)).refusal()


def test_a_preference_falls_through_from_what_is_missing() -> None:
    placement = place("server", [CPU], ("cuda", "cpu"))
    assert chosen(placement) == ["cpu"]
    assert [each.provider for each in placement.rejected] == ["cuda"]


def test_no_variants_is_a_refusal_too() -> None:
    assert "the model has no variants" in place("server", []).refusal()


def test_nothing_is_lost_between_choices_and_rejections() -> None:
    providers = providers_of("nvidia_desktop")
    placement = plan_placement(EVERY_FAMILY, providers, {})
    assert len(placement.choices) + len(placement.rejected) == len(EVERY_FAMILY) * len(providers)


def test_the_choice_carries_what_a_worker_needs() -> None:
    npu = provider(providers_of("qualcomm_laptop"), "qnn")
    choice = place("qualcomm_laptop", EVERY_FAMILY, Policy.MIN_POWER).choices[0]
    assert choice.provider == npu.choice()
    assert choice.provider.library == npu.library
    assert dataclasses.asdict(choice)["memory"] == HOST


# ---- builds that nothing here runs ----


@pytest.mark.parametrize(
    ("machine", "preference", "expected"),
    [
        ("server", Policy.AUTO, ("cuda", "this machine has neither")),
        ("nvidia_desktop", Policy.AUTO, None),
        ("nvidia_desktop", ("cpu",), ("cuda", "names others")),
    ],
)
def test_a_build_that_is_not_used_has_one_reason(machine: str, preference: Preference, expected: tuple[str, str] | None) -> None:
    placement = place(machine, [CPU, variant("cuda-fp16")], preference)
    if expected is None:
        assert placement.unused == ()
    else:
        (unused,) = placement.unused
        assert (unused.variant, unused.provider) == ("cuda-fp16", expected[0])
        assert expected[1] in unused.why


def test_a_build_whose_device_is_full_says_so() -> None:
    variants = [variant("cuda-fp16", needed_bytes=3 * GIB), CPU]
    (unused,) = plan_placement(variants, providers_of("nvidia_desktop"), {"nvidia:0": 2 * GIB}).unused
    assert (unused.variant, unused.provider) == ("cuda-fp16", "cuda")
    assert "2.0 GiB of memory nvidia:0 are free" in unused.why
