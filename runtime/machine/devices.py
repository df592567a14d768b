"""The processors of a machine, merged from all sources that list them. Pure. Knows no provider's software.

The same device is listed by ONNX Runtime once per provider, by Linux, and by nvidia-smi. It is identified by its kind, its
PCI ids, and that it is the n-th with these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from runtime.machine.discovery import EpDevice, NvidiaGpu, PciDevice, RawDiscovery
from runtime.machine.execution_provider import HOST, VENDOR_NAMES, DeviceKind, Vendor
from runtime.machine.hardware import ACCELERATOR, DISPLAY

_AMD_NPUS = frozenset({0x1502, 0x17F0, 0x17F1})  # Phoenix, Strix, Krackan: in a class with many other things
_MEMORY_KEYS = {DeviceKind.GPU: "GPU_DEVICE_TOTAL_MEM_SIZE", DeviceKind.NPU: "NPU_DEVICE_TOTAL_MEM_SIZE"}  # OpenVINO's
_BYTES = {"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


@dataclass(frozen=True, slots=True)
class DeviceId:
    """nth: among the devices of one machine that are alike in the other three, from 0."""

    kind: DeviceKind
    vendor_id: int
    device_id: int
    nth: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """description: empty if unknown. driver: its version or module. has_driver: None if unknown.

    memory: HOST, or `nvidia:0` for a device with memory of its own. memory_bytes: of that memory, None if unknown.
    """

    id: DeviceId
    description: str = ""
    memory_bytes: int | None = None
    discrete: bool = False
    driver: str = ""
    has_driver: bool | None = None
    memory: str = HOST

    @property
    def vendor(self) -> str:
        return VENDOR_NAMES.get(self.id.vendor_id, f"vendor {self.id.vendor_id:04x}")

    @property
    def label(self) -> str:
        """The name to show to users."""
        ids = f"{self.vendor} {self.id.kind.value.upper()} {self.id.vendor_id:04x}:{self.id.device_id:04x}"
        return self.description or ids


def read_devices(raw: RawDiscovery) -> tuple[Device, ...]:
    """GPUs and NPUs, in the order in which they were first listed; without the CPU."""
    found: dict[DeviceId, Device] = {}
    for device in (*_listed_by_onnxruntime(raw), *_nvidia(raw), *_pci(raw), *_apple(raw)):
        found[device.id] = _merged(found[device.id], device) if device.id in found else device
    return tuple(_with_memory(found.values(), raw.hardware.memory_bytes))


def devices_listed_by(raw: RawDiscovery, ep_name: str) -> list[tuple[DeviceId, EpDevice]]:
    """The GPUs and NPUs that one provider lists, in its order; kinds that a newer onnxruntime may add are left out."""
    listed = [each for each in raw.ep_devices if each.ep_name == ep_name and each.kind in {DeviceKind.GPU, DeviceKind.NPU}]
    ids = _numbered([(DeviceKind(each.kind), each.vendor_id, each.device_id) for each in listed])
    return list(zip(ids, listed, strict=True))


def _numbered(keys: list[tuple[DeviceKind, int, int]]) -> list[DeviceId]:
    seen: Counter[tuple[DeviceKind, int, int]] = Counter()
    ids = []
    for key in keys:
        ids.append(DeviceId(*key, nth=seen[key]))
        seen[key] += 1
    return ids


def _listed_by_onnxruntime(raw: RawDiscovery) -> Iterator[Device]:
    for name in dict.fromkeys(each.ep_name for each in raw.ep_devices):
        yield from (_of_ep(each, id) for id, each in devices_listed_by(raw, name))


def _of_ep(device: EpDevice, id: DeviceId) -> Device:
    return Device(
        id=id,
        description=device.metadata.get("Description") or device.ep_metadata.get("FULL_DEVICE_NAME", ""),
        memory_bytes=_size(device.metadata.get("DxgiVideoMemory", "")) or _size(device.ep_metadata.get(_MEMORY_KEYS[id.kind], "")),
        discrete=device.metadata.get("Discrete") == "1",
        driver=device.ep_metadata.get("NPU_DRIVER_VERSION") or device.ep_metadata.get("os_driver_version", ""),
        has_driver=True,
    )


def _size(text: str) -> int | None:
    """`24142 MB` or `18446744073` in bytes; None for anything else."""
    number, _, unit = text.partition(" ")
    if not number.isdigit() or (unit and unit not in _BYTES):
        return None
    return int(number) * _BYTES.get(unit, 1)


def _nvidia(raw: RawDiscovery) -> Iterator[Device]:
    gpus = raw.hardware.nvidia_gpus
    ids = _numbered([(DeviceKind.GPU, gpu.vendor_id, gpu.device_id) for gpu in gpus])
    yield from (_of_nvidia(gpu, id) for gpu, id in zip(gpus, ids, strict=True))


def _of_nvidia(gpu: NvidiaGpu, id: DeviceId) -> Device:
    return Device(id, gpu.name, gpu.memory_bytes, discrete=True, driver=gpu.driver, has_driver=True)


def _pci(raw: RawDiscovery) -> Iterator[Device]:
    listed = [(each, kind) for each in raw.hardware.pci_devices if (kind := _kind(each)) is not None]
    ids = _numbered([(kind, each.vendor_id, each.device_id) for each, kind in listed])
    for (each, _), id in zip(listed, ids, strict=True):
        yield Device(id, discrete=_is_discrete(each), driver=each.driver or "", has_driver=each.driver not in {None, "nouveau"})


def _kind(device: PciDevice) -> DeviceKind | None:
    """None for what computes nothing for us: management consoles, virtual displays, other accelerators."""
    match device.class_id >> 16, device.vendor_id:
        case (c, Vendor.ATI) if c in (DISPLAY, ACCELERATOR):
            return DeviceKind.GPU
        case (c, Vendor.NVIDIA | Vendor.INTEL) if c == DISPLAY:
            return DeviceKind.GPU
        case (c, Vendor.INTEL) if c == ACCELERATOR:
            return DeviceKind.NPU
        case (_, Vendor.AMD) if device.device_id in _AMD_NPUS:
            return DeviceKind.NPU
        case _:
            return None


def _is_discrete(device: PciDevice) -> bool:
    """NVIDIA's, and Intel's behind a bridge. AMD's integrated graphics are behind one, too, so they are not distinguished here."""
    behind_bridge = device.address.split(":")[-2:-1] != ["00"]
    return device.vendor_id == Vendor.NVIDIA or (device.vendor_id == Vendor.INTEL and behind_bridge)


def _apple(raw: RawDiscovery) -> Iterator[Device]:
    """Every Mac with Apple silicon has both, and onnxruntime without a plugin lists neither."""
    if raw.system == "Darwin" and raw.machine == "arm64":
        yield Device(DeviceId(DeviceKind.GPU, Vendor.APPLE, 0), f"GPU of {raw.hardware.cpu}", has_driver=True)
        yield Device(DeviceId(DeviceKind.NPU, Vendor.APPLE, 0), f"Neural Engine of {raw.hardware.cpu}", has_driver=True)


def _merged(first: Device, second: Device) -> Device:
    """What the first teller did not know, the second may."""
    return replace(
        first,
        description=first.description or second.description,
        memory_bytes=first.memory_bytes or second.memory_bytes,
        discrete=first.discrete or second.discrete,
        driver=first.driver or second.driver,
        has_driver=first.has_driver or second.has_driver,
    )


def _with_memory(devices: Iterable[Device], host_bytes: int) -> Iterator[Device]:
    """Devices with memory of their own are numbered per vendor; the others live in the host's."""
    seen: Counter[str] = Counter()
    for device in devices:
        if device.discrete:
            name = device.vendor.lower()
            yield replace(device, memory=f"{name}:{seen[name]}")
            seen[name] += 1
        else:
            yield replace(device, memory=HOST, memory_bytes=host_bytes)
