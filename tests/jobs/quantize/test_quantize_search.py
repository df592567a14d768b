"""What the search of `auto` builds between int8 and int4, on a model whose parts have scripted losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.tasks.quantize.builds import Builds
from jobs.tasks.quantize.searching import search
from model_registry.conversion.quantizers.mixing import HEAD, MATRICES, Unit
from model_registry.conversion.quantizers.recipe import Recipe

pytestmark = pytest.mark.unit


class ScriptedBuilds:
    """Builds of a model with three layers, none of which is made. A mixture's ratio is 1 + `step` for each of its parts."""

    def __init__(self, ratios: Mapping[str, float], step: float) -> None:
        self.architecture = SimpleNamespace(num_layers=3)
        self.expected_text: list[str] = []
        reporter = SimpleNamespace(message=self.expected_text.append)
        self.context = SimpleNamespace(reporter=reporter, stage=lambda _: None, progress=lambda *_, **__: None)
        self._ratios = ratios
        self._step = step

    def build(self, name: str, recipe: Recipe) -> Path:
        assert recipe.rounding_4 == "k-quant"
        return Path(name)

    def made(self, name: str, write: Callable[[Path], None]) -> Path:
        assert callable(write)
        return Path(name)

    def parameters(self, name: str) -> dict[str, Any]:
        return {"precision": name.partition("-")[0]}

    def ratio(self, name: str, folder: Path) -> float:
        assert folder.name == name
        return self._ratios[name] if name in self._ratios else 1 + self._step * int(name.split()[0])

    def damage(self, name: str, build: Path, other: Path, matrices: Sequence[str]) -> float:
        assert (build.name, other.name, bool(matrices)) == ("int8", "int4-head4", True)
        return 9.0 if name == "head" else 0.1 if "down" in name else 0.01

    def units(self) -> list[Unit]:
        parts = [Unit(f"{kind} {layer}", (f"blk.{layer}.{kind}",), 10) for kind in MATRICES for layer in range(3)]
        return [*parts, Unit("head", (HEAD,), 100)]


def found(ratios: Mapping[str, float], step: float = 0.01, max_ratio: float = 1.03) -> tuple[Any, ScriptedBuilds]:
    builds = ScriptedBuilds(ratios, step)
    return search(cast(Builds, builds), "k-quant", max_ratio), builds


def test_as_many_parts_have_4_bits_as_the_loss_allows_the_least_damaged_first() -> None:
    result, builds = found({"int8": 1.001, "int4": 1.1, "int4-head4": 1.2}, step=0.0021)
    assert list(result.folders) == ["int8", "int4", "int4-head4", "mixed"]
    assert result.folders["mixed"] == Path("14 units")
    parameters = result.parameters["mixed"]
    assert (parameters["precision"], parameters["head_bits"], len(parameters["int4_parts"])) == ("mixed", 8, 14)
    assert "head" not in parameters["int4_parts"]
    assert "14 of 16 parts" in result.why[0]
    assert "8 bits have: " in result.why[0]
    assert "head" in result.why[0]
    assert "With 4 bits in 8 of 16 parts, perplexity is x 1.0168." in builds.expected_text


@pytest.mark.parametrize(
    "ratios", [{"int8": 1.04, "int4": 1.1, "int4-head4": 1.2}, {"int8": 1.0, "int4": 1.01, "int4-head4": 1.02}]
)
def test_nothing_is_mixed_when_int8_loses_too_much_or_int4_little_enough(ratios: Mapping[str, float]) -> None:
    assert list(found(ratios)[0].folders) == ["int8", "int4", "int4-head4"]


def test_a_model_of_which_no_part_bears_4_bits_is_reported() -> None:
    result, _ = found({"int8": 1.0, "int4": 1.5, "int4-head4": 1.9}, step=0.1)
    assert "mixed" not in result.folders
    assert "Not a single part" in result.why[0]
