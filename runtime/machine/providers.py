"""The child that queries what this machine can run models on: `python -m runtime.machine.providers` prints one RawDiscovery as
JSON.

It loads libraries of vendors, which may hang, print or crash; so it is a process of its own, and the gateway never does this
itself. What the answers mean is decided in `provider_reading.py`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import sys
from dataclasses import dataclass, field
from importlib.metadata import distributions
from types import ModuleType
from typing import Any

import msgspec

from model_registry.telemetry import turn_off_telemetry
from runtime.machine.discovery import EpDevice, PluginLibrary, RawDiscovery
from runtime.machine.hardware import read_hardware

_PLUGIN_MODULES = ("onnxruntime_ep_", "onnxruntime_qnn")  # how the vendors' wheels name theirs; none has an entry point
_OF_INTEREST = ("onnxruntime", "foundry-local", "slmops")


@dataclass(frozen=True, slots=True)
class _Answer:
    """The report of one library. error: why it could not be queried."""

    available: list[str] = field(default_factory=list)
    devices: list[EpDevice] = field(default_factory=list)
    plugins: list[PluginLibrary] = field(default_factory=list)
    error: str | None = None


def discover() -> RawDiscovery:
    """Registers what can be registered. Whatever a vendor's library raises becomes text in the answer."""
    installed = _installed()
    answer = _query_onnxruntime(installed)
    flags, genai_error = _query_genai()
    return RawDiscovery(
        system=platform.system(),
        machine=platform.machine(),
        python=platform.python_version(),
        hardware=read_hardware(),
        distributions=installed,
        available_providers=answer.available,
        ep_devices=answer.devices,
        plugins=answer.plugins,
        onnxruntime_error=answer.error,
        genai_flags=flags,
        genai_error=genai_error,
    )


def _installed() -> dict[str, str]:
    found: dict[str, str] = {}
    for each in distributions():
        found.setdefault(each.name.lower().replace("_", "-"), each.version)  # the first on the path is the one in use
    return {name: found[name] for name in sorted(found) if name.startswith(_OF_INTEREST)}


def _query_onnxruntime(installed: dict[str, str]) -> _Answer:
    try:
        import onnxruntime

        onnxruntime.disable_telemetry_events()
    except Exception as error:
        return _Answer(error=_explained(error))
    modules = sorted(module.name for module in pkgutil.iter_modules() if module.name.startswith(_PLUGIN_MODULES))
    plugins = [_register(onnxruntime, module, _version_of(module, installed)) for module in modules]
    devices = [_ep_device(device) for device in onnxruntime.get_ep_devices()]
    return _Answer(list(onnxruntime.get_available_providers()), devices, plugins)


def _version_of(module: str, installed: dict[str, str]) -> str:
    """The version of the distribution that contains the module: the one of its name, or one of its builds (`...-cu12`)."""
    name = module.replace("_", "-")
    return installed.get(name) or next((version for each, version in installed.items() if each.startswith(name)), "unknown")


def _register(onnxruntime: Any, name: str, version: str) -> PluginLibrary:
    ep_name = library = None
    try:
        module = importlib.import_module(name)
        ep_name, library = _reported_by(module, "ep_name"), _reported_by(module, "library_path")
        onnxruntime.register_execution_provider_library(ep_name, library)
    except Exception as error:
        return PluginLibrary(module=name, version=version, ep_name=ep_name, library=library, error=_explained(error))
    return PluginLibrary(module=name, version=version, ep_name=ep_name, library=library)


def _reported_by(module: ModuleType, what: str) -> str:
    """Most have `get_ep_name()` and `get_library_path()`; onnxruntime-ep-mlx calls them `ep_name()` and `library_path()`."""
    function = getattr(module, f"get_{what}", None) or getattr(module, what)
    return str(function())


def _ep_device(device: Any) -> EpDevice:
    """An OrtEpDevice."""
    return EpDevice(
        ep_name=device.ep_name,
        ep_vendor=device.ep_vendor,
        kind=device.device.type.name.lower(),
        vendor=device.device.vendor,
        vendor_id=device.device.vendor_id,
        device_id=device.device.device_id,
        metadata=dict(device.device.metadata),
        ep_metadata=dict(device.ep_metadata),
        ep_options=dict(device.ep_options),
    )


def _query_genai() -> tuple[dict[str, bool], str | None]:
    try:
        from runtime.engines.genai.library import genai_flags

        return genai_flags(), None
    except Exception as error:
        return {}, _explained(error)


def _explained(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def main() -> None:
    turn_off_telemetry()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native libraries print is not part of the answer
    sys.stdout = sys.stderr
    answer.write(msgspec.json.encode(discover()) + b"\n")
    answer.flush()
    os._exit(0)  # a vendor's library that hangs or crashes at its end must not spoil the answer


if __name__ == "__main__":
    main()
