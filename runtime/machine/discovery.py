"""A machine's raw report of its execution providers, convertible to and from JSON. Judges nothing; imports no vendor's library."""

from __future__ import annotations

import msgspec


class EpDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `onnxruntime.get_ep_devices()`: an execution provider on a device. kind: `cpu`, `gpu` or `npu`."""

    ep_name: str
    ep_vendor: str
    kind: str
    vendor: str
    vendor_id: int
    device_id: int
    metadata: dict[str, str] = {}
    ep_metadata: dict[str, str] = {}
    ep_options: dict[str, str] = {}


class PluginLibrary(msgspec.Struct, frozen=True, kw_only=True):
    """An installed plugin provider, found by its module. error: why it could not be found or registered; None when it was."""

    module: str
    version: str
    ep_name: str | None = None
    library: str | None = None
    error: str | None = None


class PciDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A display controller or accelerator as Linux lists it. class_id: 24 bits. driver: the kernel's, None when none is bound."""

    address: str
    class_id: int
    vendor_id: int
    device_id: int
    driver: str | None = None


class NvidiaGpu(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `nvidia-smi`."""

    name: str
    memory_bytes: int
    driver: str
    vendor_id: int
    device_id: int


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What the operating system lists without any vendor's library. memory_bytes: of the host. accelerators: `/dev/accel`."""

    cpu: str
    cpu_flags: list[str]
    memory_bytes: int
    pci_devices: list[PciDevice] = []
    accelerators: list[str] = []
    nvidia_gpus: list[NvidiaGpu] = []


class RawDiscovery(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. system: `Linux`, `Windows` or `Darwin`; machine: e.g. `x86_64`, `AMD64`, `arm64`; python: its version.

    distributions: installed ones of interest, by name. available_providers: of `onnxruntime.get_available_providers()`.
    onnxruntime_error, genai_error: why it could not be imported. genai_flags: what onnxruntime-genai was built for.
    note: in a recording, how it was made.
    """

    system: str
    machine: str
    python: str
    hardware: Hardware
    distributions: dict[str, str] = {}
    available_providers: list[str] = []
    ep_devices: list[EpDevice] = []
    plugins: list[PluginLibrary] = []
    onnxruntime_error: str | None = None
    genai_flags: dict[str, bool] = {}
    genai_error: str | None = None
    note: str = ""
