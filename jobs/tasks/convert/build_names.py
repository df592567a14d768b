"""Builds as texts, `cpu-int8` or `cuda-fp16`: an execution provider and a precision. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.tasks.convert.builder_options import Provider
from model_registry.records import Precision


@dataclass(frozen=True, slots=True)
class BuildName:
    """What is requested of one build. precision: AUTO leaves it to the importer or builder."""

    provider: Provider
    precision: Precision

    def __str__(self) -> str:
        return f"{self.provider}-{self.precision}"


def parse_build(text: str) -> BuildName:
    """Raises ValueError, with what may be written."""
    provider, _, precision = text.rpartition("-")
    try:
        return BuildName(Provider(provider), Precision(precision))
    except ValueError:
        known = f"one of {', '.join(Provider)} and one of {', '.join(Precision)}"
        raise ValueError(f"{text!r} names no build: write PROVIDER-PRECISION, with {known}") from None


def parse_builds(texts: list[str]) -> tuple[BuildName, ...]:
    """Raises ValueError, also for one that is named twice."""
    names = tuple(map(parse_build, texts))
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is named twice")
    return names
