"""What a discovery means: which execution providers this machine has, which can be used, and what would make the others usable.

Pure: a RawDiscovery in, ExecutionProviders out. Where software or hardware is missing, the first thing missing is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from runtime.machine.devices import Device, DeviceId, devices_listed_by, read_devices
from runtime.machine.discovery import PluginLibrary, RawDiscovery
from runtime.machine.execution_provider import CPU, KNOWN, DeviceKind, ExecutionProvider, KnownProvider, Vendor, cpu_provider
from runtime.machine.installation import GENAI, ONNXRUNTIME

_NVIDIA_DRIVER = "install NVIDIA's driver (https://www.nvidia.com/drivers), then restart the machine"
_NPU_DRIVER = "install the kernel driver of the NPU (Intel: https://github.com/intel/linux-npu-driver), then restart the machine"
_GPU_DRIVER = "install the kernel driver of the GPU, then restart the machine"
_NOTHING = "nothing to install: models run on the CPU here"
_GENAI = "pip install --force-reinstall --no-deps onnxruntime-genai"


@dataclass(frozen=True, slots=True)
class _Obstacle:
    why_not: str
    remedy: str


def read_discovery(raw: RawDiscovery) -> tuple[ExecutionProvider, ...]:
    """The CPU first, then in the order of the table, one per device. Those appear whose hardware or software is here."""
    devices = read_devices(raw)
    return (_cpu(raw), *(provider for known in KNOWN[1:] for provider in _providers(known, devices, raw)))


def _cpu(raw: RawDiscovery) -> ExecutionProvider:
    names = [each.metadata.get("Description", "") for each in raw.ep_devices if each.ep_name == CPU.name]
    cpu = cpu_provider(
        next(filter(None, names), raw.hardware.cpu),
        raw.hardware.memory_bytes,
        versions=_flavours(raw),
        engines=("onnx", *_engines(("genai", "foundry"), raw)),
    )
    return _blocked(cpu, _no_onnxruntime(raw)) if raw.onnxruntime_error else cpu


def _providers(known: KnownProvider, devices: tuple[Device, ...], raw: RawDiscovery) -> Iterator[ExecutionProvider]:
    plugin = next((each for each in raw.plugins if each.module == known.module), None)
    listed = _listed(known, raw)
    software = plugin is not None or known.name in raw.available_providers or bool(listed)
    mine = [device for device in devices if _could_run(known, device, raw, software=software)]
    for index, device in enumerate(mine):
        obstacle = _obstacle(known, device, plugin, raw, is_listed=device.id in listed)
        yield _on_device(known, device, index, plugin, raw, obstacle)
    if software and not mine:
        yield _without_device(known, plugin, raw)


def _listed(known: KnownProvider, raw: RawDiscovery) -> list[DeviceId]:
    """The devices that the provider itself lists."""
    return [id for id, _ in devices_listed_by(raw, known.name)]


def _could_run(known: KnownProvider, device: Device, raw: RawDiscovery, *, software: bool) -> bool:
    """A provider for every vendor's devices is no news on a system it does not exist for."""
    is_news = known.vendors is not None or raw.system in known.systems or software
    return device.id.kind in known.kinds and (known.vendors is None or device.id.vendor_id in known.vendors) and is_news


def _on_device(
    known: KnownProvider,
    device: Device,
    index: int,
    plugin: PluginLibrary | None,
    raw: RawDiscovery,
    obstacle: _Obstacle | None,
) -> ExecutionProvider:
    driver = (f"driver {device.driver}",) if device.driver else ()
    provider = ExecutionProvider(
        name=known.name,
        short=known.short,
        kind=device.id.kind,
        device=device.label,
        vendor=device.vendor,
        device_index=index,
        memory=device.memory,
        memory_bytes=device.memory_bytes,
        discrete=device.discrete,
        versions=(*_software_versions(known, plugin, raw), *driver),
        engines=_engines(known.engines, raw),
        library=plugin.library if plugin else None,
        proven=known.proven,
        options={"device_id": str(index)} if known.short in {"cuda", "directml"} else {},
    )
    return _blocked(provider, obstacle) if obstacle else provider


def _without_device(known: KnownProvider, plugin: PluginLibrary | None, raw: RawDiscovery) -> ExecutionProvider:
    kinds = " or ".join(kind.value.upper() for kind in known.kinds)
    return ExecutionProvider(
        name=known.name,
        short=known.short,
        kind=known.kinds[0],
        device="none",
        vendor="-",
        versions=_software_versions(known, plugin, raw),
        library=plugin.library if plugin else None,
        usable=False,
        why_not=f"its software is installed, but no {kinds} that it can run on was found",
        remedy=_NOTHING,
    )


def _blocked(provider: ExecutionProvider, obstacle: _Obstacle) -> ExecutionProvider:
    return replace(provider, usable=False, why_not=obstacle.why_not, remedy=obstacle.remedy)


# ---- obstacles, in the order in which a user would remove them ----


def _obstacle(
    known: KnownProvider, device: Device, plugin: PluginLibrary | None, raw: RawDiscovery, *, is_listed: bool
) -> _Obstacle | None:
    return (
        _no_system(known, raw)
        or _no_engine(known)
        or (None if is_listed else _no_driver(device))
        or _no_software(known, plugin, raw)
        or _not_listed(known, raw, is_listed=is_listed)
        or _no_genai(known, raw)
    )


def _no_system(known: KnownProvider, raw: RawDiscovery) -> _Obstacle | None:
    if raw.system in known.systems:
        return None
    return _Obstacle(f"its software exists for {' and '.join(sorted(known.systems))} only", _NOTHING)


def _no_engine(known: KnownProvider) -> _Obstacle | None:
    return None if known.engines else _Obstacle("no engine of slmops generates text with it", known.install)


def _no_driver(device: Device) -> _Obstacle | None:
    """Known only from Linux, or from an nvidia-smi that lists no GPU."""
    if device.has_driver is not False:
        return None
    remedy = _NPU_DRIVER if device.id.kind is DeviceKind.NPU else _GPU_DRIVER
    if device.id.vendor_id == Vendor.NVIDIA:
        remedy = _NVIDIA_DRIVER
    return _Obstacle("the system has no driver for this device", remedy)


def _no_software(known: KnownProvider, plugin: PluginLibrary | None, raw: RawDiscovery) -> _Obstacle | None:
    if raw.onnxruntime_error:
        return _no_onnxruntime(raw)
    if known.name in raw.available_providers:
        return None
    if known.module is None:
        return _Obstacle("the installed onnxruntime was not built with it", _install(known, raw))
    if plugin is None:
        return _Obstacle(f"{known.module.replace('_', '-')} is not installed", _install(known, raw))
    if plugin.error is not None:
        return _Obstacle(
            f"its library could not be registered: {plugin.error}",
            f"install what the message names, or the release that fits: pip install --upgrade {plugin.module.replace('_', '-')}",
        )
    return None


def _not_listed(known: KnownProvider, raw: RawDiscovery, *, is_listed: bool) -> _Obstacle | None:
    """A plugin lists the devices that it can use; a built-in provider may not."""
    if is_listed or known.module is None:
        return None
    return _Obstacle("its library does not offer this device", "update the device's driver to the newest, then try again")


def _no_genai(known: KnownProvider, raw: RawDiscovery) -> _Obstacle | None:
    if raw.genai_error:
        return _Obstacle(f"onnxruntime-genai, which drives it, cannot be imported: {raw.genai_error}", _GENAI)
    if known.genai_flag is None or raw.genai_flags.get(known.genai_flag):
        return None
    return _Obstacle("the installed onnxruntime-genai was not built for it", _install(known, raw))


def _no_onnxruntime(raw: RawDiscovery) -> _Obstacle:
    return _Obstacle(f"onnxruntime cannot be imported: {raw.onnxruntime_error}", CPU.install)


def _install(known: KnownProvider, raw: RawDiscovery) -> str:
    """A flavour replaces files of another wheel, so it has to come last, at the version of what it replaces."""
    pins = [f"{flavour}=={raw.distributions[plain]}" for plain, flavour in known.flavours if plain in raw.distributions]
    return f"{known.install} && pip install --force-reinstall --no-deps {' '.join(pins)}" if pins else known.install


# ---- what is installed ----


def _engines(names: tuple[str, ...], raw: RawDiscovery) -> tuple[str, ...]:
    is_here = {"genai": raw.genai_error is None, "foundry": "foundry-local-sdk" in raw.distributions}
    return tuple(name for name in names if is_here[name])


def _software_versions(known: KnownProvider, plugin: PluginLibrary | None, raw: RawDiscovery) -> tuple[str, ...]:
    if plugin is not None:
        return (f"{plugin.module.replace('_', '-')} {plugin.version}",)
    is_built_in = known.module is None and known.name in raw.available_providers
    return _flavours(raw) if is_built_in else ()


def _flavours(raw: RawDiscovery) -> tuple[str, ...]:
    """The flavours of onnxruntime and onnxruntime-genai; the plain one only if no other was installed over it."""
    found = []
    for name in (ONNXRUNTIME, GENAI):
        here = [each for each in raw.distributions if each in name.all]
        found += [each for each in here if each != name.plain] or here
    return tuple(f"{each} {raw.distributions[each]}" for each in found)
