"""An execution provider on a device, and the table of those that slmops knows. Pure values; inspects no machine.

A model's variant runs on the provider it was built for: a provider's short name is also its variants' `provider_family`, and the
name of the extra that installs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from runtime.protocol.messages import ProviderChoice

HOST = "host"  # the memory of the CPU, and of devices that have none of their own


class DeviceKind(StrEnum):
    CPU = "cpu"
    GPU = "gpu"
    NPU = "npu"


class Vendor:
    """PCI vendor ids; Qualcomm's is the ACPI name QCOM, as Windows gives it."""

    NVIDIA = 0x10DE
    AMD = 0x1022
    ATI = 0x1002
    INTEL = 0x8086
    APPLE = 0x106B
    QUALCOMM = 0x4D4F4351


VENDOR_NAMES: Mapping[int, str] = MappingProxyType(
    {
        Vendor.NVIDIA: "NVIDIA",
        Vendor.AMD: "AMD",
        Vendor.ATI: "AMD",
        Vendor.INTEL: "Intel",
        Vendor.APPLE: "Apple",
        Vendor.QUALCOMM: "Qualcomm",
    }
)


@dataclass(frozen=True, slots=True)
class ExecutionProvider:
    """A provider on one device of this machine. name: as onnxruntime has it; short: `cpu`, `cuda`, ...

    device: for people. device_index: among the provider's devices. memory: which memory its models take, HOST or a device's id
    such as `nvidia:0`, the same for every provider on that device. memory_bytes: its size, None if unknown.
    discrete: has memory of its own. versions: of the software, `onnxruntime 1.31.0`. engines: which can use it.
    usable: whether a model may be placed here; else why_not and remedy, the command or act that would make it so.
    proven: slmops has run on such hardware. library: a plugin's.
    """

    name: str
    short: str
    kind: DeviceKind
    device: str
    vendor: str
    device_index: int = 0
    memory: str = HOST
    memory_bytes: int | None = None
    discrete: bool = False
    versions: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    usable: bool = True
    why_not: str | None = None
    remedy: str | None = None
    proven: bool = False
    library: str | None = None
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def choice(self) -> ProviderChoice:
        return ProviderChoice(name=self.name, device_index=self.device_index, library=self.library, options=dict(self.options))


@dataclass(frozen=True, slots=True)
class KnownProvider:
    """What slmops knows of a provider before it meets one. vendors: whose devices it runs, None for any.

    systems: where its software exists. module: of its plugin wheel, None when it is built into a flavour of onnxruntime.
    flavours: wheels that replace another's files, as (replaced, flavour); installed last, at the version of what they replace.
    genai_flag: what onnxruntime-genai must have been built for, None when it needs no flag. engines: that can drive it.
    install: the command that brings its software, or what to do where no command can. proven: slmops has run on such hardware.
    """

    name: str
    short: str
    kinds: tuple[DeviceKind, ...]
    vendors: frozenset[int] | None
    systems: frozenset[str]
    engines: tuple[str, ...]
    install: str
    module: str | None = None
    flavours: tuple[tuple[str, str], ...] = ()
    genai_flag: str | None = None
    proven: bool = False


# the newest pair that fit each other; later releases of the second require a first that was never published
_DIRECTML = "--no-deps onnxruntime-directml==1.24.4 onnxruntime-genai-directml==0.13.0"
_LINUX_WINDOWS = frozenset({"Linux", "Windows"})
_EVERYWHERE = frozenset({"Linux", "Windows", "Darwin"})


def _extra(name: str) -> str:
    return f"pip install 'slmops[{name}]'"


CPU = KnownProvider(
    name="CPUExecutionProvider",
    short="cpu",
    kinds=(DeviceKind.CPU,),
    vendors=None,
    systems=_EVERYWHERE,
    engines=("onnx", "genai", "foundry"),
    install="pip install --force-reinstall --no-deps onnxruntime",
    proven=True,
)

# On one device, the provider of its vendor comes before those for every vendor, as onnxruntime orders them
# (provider_policy_context.cc).
KNOWN: tuple[KnownProvider, ...] = (
    CPU,
    KnownProvider(
        name="CUDAExecutionProvider",
        short="cuda",
        kinds=(DeviceKind.GPU,),
        vendors=frozenset({Vendor.NVIDIA}),
        systems=_LINUX_WINDOWS,
        engines=("genai",),
        genai_flag="cuda",
        flavours=(("onnxruntime", "onnxruntime-gpu"), ("onnxruntime-genai", "onnxruntime-genai-cuda")),
        install=_extra("cuda"),
    ),
    KnownProvider(
        name="NvTensorRTRTXExecutionProvider",
        short="trt-rtx",
        kinds=(DeviceKind.GPU,),
        vendors=frozenset({Vendor.NVIDIA}),
        systems=_LINUX_WINDOWS,
        engines=("genai",),
        module="onnxruntime_ep_nv_tensorrt_rtx",
        install=_extra("trt-rtx"),
    ),
    KnownProvider(
        name="QNNExecutionProvider",
        short="qnn",
        kinds=(DeviceKind.NPU,),
        vendors=frozenset({Vendor.QUALCOMM}),
        systems=frozenset({"Windows"}),
        engines=("genai",),
        module="onnxruntime_qnn",
        genai_flag="qnn",
        install=_extra("qnn"),
    ),
    KnownProvider(
        name="OpenVINOExecutionProvider",
        short="openvino",
        kinds=(DeviceKind.NPU, DeviceKind.GPU),  # and the CPU, which our own engine serves better
        vendors=frozenset({Vendor.INTEL}),
        systems=_LINUX_WINDOWS,
        engines=("genai",),
        module="onnxruntime_ep_openvino",
        genai_flag="openvino",
        install=_extra("openvino"),
    ),
    KnownProvider(
        name="VitisAIExecutionProvider",
        short="vitisai",
        kinds=(DeviceKind.NPU,),
        vendors=frozenset({Vendor.AMD}),
        systems=frozenset({"Windows"}),
        engines=("genai",),
        install="install AMD's Ryzen AI Software and slmops in its Python environment (https://ryzenai.docs.amd.com)",
    ),
    KnownProvider(
        name="MLXExecutionProvider",
        short="mlx",
        kinds=(DeviceKind.GPU,),
        vendors=frozenset({Vendor.APPLE}),
        systems=frozenset({"Darwin"}),
        engines=("genai",),
        module="onnxruntime_ep_mlx",
        install="pip install onnxruntime-ep-mlx",
    ),
    KnownProvider(
        name="CoreMLExecutionProvider",
        short="coreml",
        kinds=(DeviceKind.NPU,),
        vendors=frozenset({Vendor.APPLE}),
        systems=frozenset({"Darwin"}),
        engines=(),
        install="nothing to install; use webgpu, or the CPU",
    ),
    KnownProvider(
        name="DmlExecutionProvider",
        short="directml",
        kinds=(DeviceKind.GPU,),
        vendors=None,
        systems=frozenset({"Windows"}),
        engines=("genai",),
        genai_flag="dml",
        install="pip uninstall -y onnxruntime onnxruntime-genai && pip install --force-reinstall " + _DIRECTML,
    ),
    KnownProvider(
        name="WebGpuExecutionProvider",
        short="webgpu",
        kinds=(DeviceKind.GPU,),
        vendors=None,
        systems=_EVERYWHERE,
        engines=("genai",),
        module="onnxruntime_ep_webgpu",
        genai_flag="webgpu",
        install=_extra("webgpu"),
    ),
)


def cpu_provider(
    device: str, memory_bytes: int | None, *, versions: tuple[str, ...] = (), engines: tuple[str, ...] = CPU.engines
) -> ExecutionProvider:
    """The provider that every machine has."""
    return ExecutionProvider(
        name=CPU.name,
        short=CPU.short,
        kind=DeviceKind.CPU,
        device=device,
        vendor="Microsoft",
        memory_bytes=memory_bytes,
        versions=versions,
        engines=engines,
        proven=CPU.proven,
    )
