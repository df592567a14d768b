"""The discoveries kept as data: recorded and constructed reports of machines' execution providers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from runtime.machine.discovery import RawDiscovery
from runtime.machine.execution_provider import ExecutionProvider
from runtime.machine.provider_reading import read_discovery

FOLDER = Path(__file__).parent / "discoveries"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def recorded(name: str) -> RawDiscovery:
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=RawDiscovery)


def providers_of(name: str) -> tuple[ExecutionProvider, ...]:
    return read_discovery(recorded(name))


def provider(providers: tuple[ExecutionProvider, ...], label: str) -> ExecutionProvider:
    """By short name, or by `short:index`."""
    short, _, index = label.partition(":")
    return next(each for each in providers if each.short == short and each.device_index == int(index or 0))
