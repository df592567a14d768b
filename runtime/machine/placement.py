"""Which variant of a model runs on which execution provider, and why: an ordered list, the best first. Pure.

A variant runs on the provider it was built for. What is left is an order of devices, by policy:

    max_performance   GPU, CPU, NPU    as onnxruntime's MAX_PERFORMANCE prefers a GPU and falls back to the CPU
    max_efficiency    NPU, CPU, GPU    as its MAX_EFFICIENCY prefers an NPU and falls back to the CPU
    min_power         NPU, CPU, GPU    as its MIN_OVERALL_POWER, which is the same today; of GPUs those without own memory first
    auto              a GPU with memory of its own, CPU, NPU, other GPUs

(OrtExecutionProviderDevicePolicy; provider_policy_context.cc. There the list ends with the CPU; here what remains stands last,
so that a model built for nothing else still loads.) `auto` does not put an NPU or a GPU without own memory first: decoding is bound
by memory bandwidth, which such a device shares with the CPU, and on the CPU requests share a step. A preference that names
providers takes these, in that order, and no others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from model_registry.records import GraphKind
from runtime.machine.execution_provider import KNOWN, DeviceKind, ExecutionProvider
from runtime.protocol.messages import ProviderChoice


class Policy(StrEnum):
    AUTO = "auto"
    MAX_PERFORMANCE = "max_performance"
    MAX_EFFICIENCY = "max_efficiency"
    MIN_POWER = "min_power"


Preference = Policy | tuple[str, ...]  # providers by short name, `cuda` for each of its devices or `cuda:1` for one


_ENGINES: Mapping[GraphKind, tuple[str, ...]] = {
    GraphKind.GQA: ("onnx", "genai", "foundry"),
    GraphKind.PAGED: ("genai",),
    GraphKind.OTHER: ("genai", "foundry"),
}

# Why a variant of this family runs on no other provider.
_BUILT_FOR: Mapping[str, str] = {
    "cpu": "its activations are fp32, which attention on CUDA does not take (fp16 and bf16 only), nor most accelerators",
    "cuda": "its activations are fp16 and its weights are packed for CUDA's kernels",
    "trt-rtx": "its graph is cut for TensorRT-RTX's compiler",
    "directml": "its rotary embedding and projections are laid out for DirectML",
    "webgpu": "its operators are those that WebGPU has",
    "openvino": "it holds a model compiled by OpenVINO",
    "qnn": "it holds a context compiled for Qualcomm's NPU",
    "vitisai": "it holds a context compiled for AMD's NPU",
    "coreml": "it is built for Core ML",
    "mlx": "it is built for MLX",
}


@dataclass(frozen=True, slots=True)
class PlacedVariant:
    """A build of a model, to be placed. provider_family: a provider's short name. needed_bytes: to load it, and to serve."""

    name: str
    provider_family: str
    precision: str
    graph: GraphKind
    needed_bytes: int


@dataclass(frozen=True, slots=True)
class Choice:
    """memory: what `needed_bytes` are taken from, HOST or a device's id. reason: for people."""

    variant: str
    engine: str
    provider: ProviderChoice
    short: str
    memory: str
    needed_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """variant: None when it was the provider that could not be had."""

    variant: str | None
    provider: str
    why: str


@dataclass(frozen=True, slots=True)
class Placement:
    """choices: the best first; the next is for when one fails to load. rejected: every pair of variant and provider that is none.

    unused: one rejection for each variant that no choice loads, by the provider that it is built for.
    """

    choices: tuple[Choice, ...]
    rejected: tuple[Rejection, ...]
    unused: tuple[Rejection, ...] = ()

    def refusal(self) -> str:
        """Why there is no choice, for the operator; each reason has its remedy, where there is one."""
        reasons = [f"{each.provider}: {each.why}" for each in self.rejected] or ["the model has no variants"]
        return f"No execution provider can run this model. {'; '.join(dict.fromkeys(reasons))}."


def plan_placement(
    variants: Sequence[PlacedVariant],
    providers: Sequence[ExecutionProvider],
    free_bytes: Mapping[str, int],
    preference: Preference = Policy.AUTO,
    engine: str | None = None,
) -> Placement:
    """variants: the better first, where one provider could run several. free_bytes: by memory; one that is not there has no limit.

    engine: allow no other.
    """
    choices: list[Choice] = []
    rejected = list(_not_here(preference, providers))
    for provider in _ordered(providers, preference):
        for variant in variants:
            why_not = _why_not(variant, provider, free_bytes, engine)
            if why_not is None:
                choices.append(_choice(variant, provider, free_bytes, preference, engine))
            else:
                rejected.append(Rejection(variant.name, label(provider), why_not))
    return Placement(tuple(choices), tuple(rejected), tuple(_unused(variants, providers, choices, rejected)))


def label(provider: ExecutionProvider) -> str:
    """`cuda`, or `cuda:1` for one that is not the provider's first device: the form in a preference."""
    return f"{provider.short}:{provider.device_index}" if provider.device_index else provider.short


# ---- in which order ----


def _ordered(providers: Sequence[ExecutionProvider], preference: Preference) -> list[ExecutionProvider]:
    if isinstance(preference, Policy):
        return sorted(providers, key=lambda provider: _rank(provider, preference))
    best_first = _ordered(providers, Policy.AUTO)
    return [provider for name in dict.fromkeys(preference) for provider in best_first if _is_named(provider, name)]


def _is_named(provider: ExecutionProvider, name: str) -> bool:
    return name in {provider.short, f"{provider.short}:{provider.device_index}"}


def _rank(provider: ExecutionProvider, policy: Policy) -> tuple[int, int, int, int]:
    """The smaller, the earlier: the kind of device, the provider's place in the table, more memory, the device's number."""
    memory = provider.memory_bytes or 0
    return _KINDS[policy].index(_kind(provider)), _TABLE.index(provider.short), -memory, provider.device_index


def _kind(provider: ExecutionProvider) -> str:
    if provider.kind is not DeviceKind.GPU:
        return provider.kind.value
    return "own-memory gpu" if provider.discrete else "shared-memory gpu"


_TABLE = [known.short for known in KNOWN]
_KINDS: Mapping[Policy, tuple[str, ...]] = {
    Policy.AUTO: ("own-memory gpu", "cpu", "npu", "shared-memory gpu"),
    Policy.MAX_PERFORMANCE: ("own-memory gpu", "shared-memory gpu", "cpu", "npu"),
    Policy.MAX_EFFICIENCY: ("npu", "cpu", "own-memory gpu", "shared-memory gpu"),
    Policy.MIN_POWER: ("npu", "cpu", "shared-memory gpu", "own-memory gpu"),
}


# ---- what cannot be ----

_MISSING = "this machine has neither a device for it nor its software; `slmops providers` shows what it has"


def _unused(
    variants: Sequence[PlacedVariant],
    providers: Sequence[ExecutionProvider],
    choices: Sequence[Choice],
    rejected: Sequence[Rejection],
) -> Iterator[Rejection]:
    used = {choice.variant for choice in choices}
    for variant in variants:
        family = variant.provider_family
        of_family = [each for each in rejected if each.variant == variant.name and each.provider.partition(":")[0] == family]
        if variant.name in used:
            continue
        if of_family:
            yield of_family[0]
        elif any(provider.short == family for provider in providers):
            yield Rejection(variant.name, family, "the model's setting `providers` names others")
        else:
            yield Rejection(variant.name, family, _MISSING)


def _not_here(preference: Preference, providers: Sequence[ExecutionProvider]) -> Iterator[Rejection]:
    """The choices among the providers that a preference names."""
    for name in () if isinstance(preference, Policy) else dict.fromkeys(preference):
        if any(_is_named(provider, name) for provider in providers):
            continue
        if name.partition(":")[0] in _TABLE:
            why = _MISSING
        else:
            why = f"there is no provider of that name; choose among {', '.join(_TABLE)}"
        yield Rejection(None, name, why)


def _why_not(variant: PlacedVariant, provider: ExecutionProvider, free_bytes: Mapping[str, int], engine: str | None) -> str | None:
    """The first reason against it, the one that no command can remove before the others."""
    if variant.provider_family != provider.short:
        because = _BUILT_FOR.get(variant.provider_family, "its family is not known")
        return f"`{variant.name}` is built for {variant.provider_family}: {because}"
    if not provider.usable:
        return f"{provider.why_not}; {provider.remedy}"
    if variant.graph is GraphKind.PAGED and provider.short != "cuda":
        return f"`{variant.name}` has paged attention, which onnxruntime-genai runs on cuda only"
    if _engine(variant, provider, engine) is None:
        return _no_engine(variant, provider, engine)
    free = free_bytes.get(provider.memory)
    if free is not None and variant.needed_bytes > free:
        return f"`{variant.name}` needs {_size(variant.needed_bytes)}, and {_size(free)} of memory {provider.memory} are free"
    return None


def _engine(variant: PlacedVariant, provider: ExecutionProvider, wanted: str | None) -> str | None:
    fitting = [name for name in _ENGINES[variant.graph] if name in provider.engines and wanted in {None, name}]
    return fitting[0] if fitting else None


def _no_engine(variant: PlacedVariant, provider: ExecutionProvider, wanted: str | None) -> str:
    able = ", ".join(name for name in _ENGINES[variant.graph] if name in provider.engines) or "none"
    subject = f"engine `{wanted}`" if wanted else "no installed engine"
    return f"{subject} runs `{variant.name}` there (graph: {variant.graph.value}; engines that can: {able})"


# ---- what can ----


def _choice(
    variant: PlacedVariant,
    provider: ExecutionProvider,
    free_bytes: Mapping[str, int],
    preference: Preference,
    engine: str | None,
) -> Choice:
    chosen = _engine(variant, provider, engine)
    assert chosen is not None
    rule = f"policy {preference.value}" if isinstance(preference, Policy) else "as preferred"
    free = free_bytes.get(provider.memory)
    room = f"; needs {_size(variant.needed_bytes)} of {_size(free)} free" if free is not None else ""
    return Choice(
        variant=variant.name,
        engine=chosen,
        provider=provider.choice(),
        short=label(provider),
        memory=provider.memory,
        needed_bytes=variant.needed_bytes,
        reason=f"{rule}: {label(provider)} on {provider.device} by engine {chosen}{room}",
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.1f} GiB"
