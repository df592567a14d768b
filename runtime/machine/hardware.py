"""The processors that the operating system reports, without any vendor's library, and how many cores this process may use.

Linux reports them in /sys, /proc and /dev. Elsewhere only the CPU is read here: ONNX Runtime knows the rest.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import psutil

from runtime.machine.discovery import Hardware, NvidiaGpu, PciDevice

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """The number of usable cores, at least 1. Hyper-threads do not count: a second thread on a core slows matrix kernels down."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed, _quota() or physical))


def _quota() -> int | None:
    """Whole cores of a cgroup v2 quota (`max 100000` or `200000 100000`), None without one."""
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


DISPLAY, ACCELERATOR, SIGNAL_PROCESSING = 0x03, 0x12, 0x11  # PCI classes of GPUs, of NPUs, and of AMD's NPUs among others
_X86_FLAGS = ("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_ARM_FLAGS = ("asimd", "asimddp", "i8mm", "bf16", "sve", "sve2")
_NVIDIA_QUERY = "name,memory.total,driver_version,pci.device_id"
_NVIDIA_TIMEOUT_S = 5.0


def read_hardware(root: Path = Path("/")) -> Hardware:
    """root: where /sys, /proc and /dev are."""
    cpu, flags = _cpu(root / "proc/cpuinfo")
    return Hardware(
        cpu=cpu or platform.processor() or platform.machine(),
        cpu_flags=flags,
        memory_bytes=psutil.virtual_memory().total,
        pci_devices=_pci_devices(root / "sys/bus/pci/devices"),
        accelerators=sorted(path.name for path in (root / "dev/accel").glob("accel*")),
        nvidia_gpus=_nvidia_gpus(),
    )


def _cpu(cpuinfo: Path) -> tuple[str, list[str]]:
    """The first processor's name, and those of its flags that matter to matrix kernels. Names differ between architectures."""
    try:
        first = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return _cpu_of_mac(), []
    fields = dict(_field(line) for line in first.splitlines() if ":" in line)
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", ""), [flag for flag in (*_X86_FLAGS, *_ARM_FLAGS) if flag in flags.split()]


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _cpu_of_mac() -> str:
    return _printed_by("sysctl", "-n", "machdep.cpu.brand_string").strip() if platform.system() == "Darwin" else ""


def _pci_devices(folder: Path) -> list[PciDevice]:
    """Display controllers and accelerators only."""
    devices = [_pci_device(path) for path in sorted(folder.glob("*"))]
    return [device for device in devices if _computes(device.class_id)]


def _pci_device(path: Path) -> PciDevice:
    driver = path / "driver"
    return PciDevice(
        address=path.name,
        class_id=int((path / "class").read_text(), 16),
        vendor_id=int((path / "vendor").read_text(), 16),
        device_id=int((path / "device").read_text(), 16),
        driver=driver.resolve().name if driver.exists() else None,
    )


def _computes(class_id: int) -> bool:
    return class_id >> 16 in {DISPLAY, ACCELERATOR, SIGNAL_PROCESSING}


def _nvidia_gpus() -> list[NvidiaGpu]:
    lines = _printed_by("nvidia-smi", f"--query-gpu={_NVIDIA_QUERY}", "--format=csv,noheader,nounits").splitlines()
    return [gpu for gpu in map(parse_nvidia_smi, lines) if gpu is not None]


def parse_nvidia_smi(line: str) -> NvidiaGpu | None:
    """`NVIDIA H100 80GB HBM3, 81559, 575.57.08, 0x233010DE` (memory in MiB); None for a line that is something else."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 4 or not fields[1].isdigit():
        return None
    ids = int(fields[3], 16)
    return NvidiaGpu(
        name=fields[0], memory_bytes=int(fields[1]) << 20, driver=fields[2], vendor_id=ids & 0xFFFF, device_id=ids >> 16
    )


def _printed_by(program: str, *arguments: str) -> str:
    """Empty when there is no such program, or it fails."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=_NVIDIA_TIMEOUT_S, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
