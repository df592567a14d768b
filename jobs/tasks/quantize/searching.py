"""The search of `auto`: int8, int4, int4 with its head, and between them the mixture with most 4-bit weights within the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.tasks.quantize.builds import Builds
from model_registry.conversion.quantizers.mixing import HEAD, Unit, by_worth, mix, most_within
from model_registry.conversion.quantizers.recipe import Algorithm, plain_recipe
from model_registry.records import Precision

INT8, INT4, INT4_HEAD, MIXED = "int8", "int4", "int4-head4", "mixed"


@dataclass(frozen=True, slots=True)
class Found:
    """folders: the builds by name, int8 first; parameters: of each build, for its manifest. why: the findings, in sentences."""

    folders: dict[str, Path]
    parameters: dict[str, dict[str, Any]]
    why: tuple[str, ...] = ()


def search(builds: Builds, algorithm: Algorithm, max_ratio: float) -> Found:
    """int4 is within the loss, or int8 is not: then there is nothing between them to look for."""
    fine = builds.build(INT8, plain_recipe(algorithm, 8, 8))
    coarse = builds.build(INT4_HEAD, plain_recipe(algorithm, 4, 4))
    with_head = builds.made(INT4, lambda folder: mix(coarse, fine, folder, [HEAD]))
    folders = {INT8: fine, INT4: with_head, INT4_HEAD: coarse}
    parameters = {name: dict(builds.parameters(name)) for name in (INT8, INT4_HEAD)}
    parameters[INT4] = parameters[INT4_HEAD] | {"head_bits": 8}
    ratios = {name: builds.ratio(name, folder) for name, folder in folders.items()}
    if ratios[INT8] > max_ratio or ratios[INT4_HEAD] <= max_ratio:
        return Found(folders, parameters)
    ordered = _ordered(builds, fine, coarse)

    def ratio(count: int) -> float:
        found = builds.ratio(f"{count} units", _mixture(builds, fine, coarse, ordered[:count]))
        builds.context.reporter.message(f"With 4 bits in {count} of {len(ordered)} parts, perplexity is x {found:.4f}.")
        return found

    count = most_within(len(ordered), ratio, max_ratio)
    chosen = ordered[:count]
    if not chosen:
        return Found(folders, parameters, ("Not a single part can have 4 bits within the loss.",))
    folders[MIXED] = _mixture(builds, fine, coarse, chosen)
    share = sum(unit.num_weights for unit in chosen) / sum(unit.num_weights for unit in ordered)
    last = [unit.name for unit in ordered[count:]]
    why = (
        f"mixed has {share:.0%} of its weights at 4 bits, {count} of {len(ordered)} parts: those whose rounding moves the "
        f"model's predictions least for their size. 8 bits have: {', '.join(last)}.",
    )
    names = [unit.name for unit in chosen]
    parameters[MIXED] = parameters[INT4_HEAD] | {
        "precision": str(Precision.MIXED),
        "head_bits": 4 if "head" in names else 8,
        "int4_parts": names,
    }
    return Found(folders, parameters, why)


def _ordered(builds: Builds, fine: Path, coarse: Path) -> list[Unit]:
    """The parts of the model, those first that are to have 4 bits first."""
    found = builds.units()
    damages = {}
    builds.context.stage("measuring what 4 bits damage where")
    for number, unit in enumerate(found):
        builds.context.progress(number, len(found), unit="parts")
        damages[unit.name] = builds.damage(unit.name, fine, coarse, unit.matrices)
    return by_worth(found, damages)


def _mixture(builds: Builds, fine: Path, coarse: Path, chosen: Sequence[Unit]) -> Path:
    names = [matrix for unit in chosen for matrix in unit.matrices]
    return builds.made(f"{len(chosen)} units", lambda folder: mix(fine, coarse, folder, names))
