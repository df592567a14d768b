"""Which builds to try, and which to take. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from model_registry.importers.recipe import FLOAT, Recipe

Group = Literal["attention", "gate", "up", "down"]
GROUPS: dict[Group, tuple[str, ...]] = {
    "attention": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "gate": ("ffn_gate",),
    "up": ("ffn_up",),
    "down": ("ffn_down",),
}
# From the least to the most that is rounded to 4 bits. The down projection and attention, whose inputs are least even, come last.
_LADDER: tuple[tuple[Group, ...], ...] = (
    (),
    ("gate",),
    ("gate", "up"),
    ("gate", "up", "attention"),
    ("gate", "up", "down"),
    ("gate", "up", "attention", "down"),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """int4: the groups of matrices at 4 bits; the others are at 8, or at 32 when `is_float`."""

    int4: tuple[Group, ...] = ()
    is_float: bool = False
    head_bits: int = 8
    block_size: int | None = None
    uses_gptq: bool = False

    @property
    def name(self) -> str:
        if self.is_float:
            return "fp32"
        kinds = "int4" if len(self.int4) == len(GROUPS) else f"int8-int4-{'-'.join(self.int4)}" if self.int4 else "int8"
        return kinds + ("-gptq" if self.uses_gptq else "") + (f"-b{self.block_size}" if self.block_size else "")

    def recipe(self, num_layers: int) -> Recipe:
        if self.is_float:
            return Recipe(bits=FLOAT, head_bits=FLOAT)
        kept = [name for group, names in GROUPS.items() if group not in self.int4 for name in names]
        exceptions = frozenset(f"blk.{layer}.{name}" for layer in range(num_layers) for name in kept)
        return Recipe(
            bits=4 if self.int4 else 8,
            head_bits=self.head_bits,
            exceptions=exceptions,
            block_4=self.block_size or 32,
            block_8=self.block_size or 64,
            uses_gptq=self.uses_gptq,
        )


@dataclass(frozen=True, slots=True)
class Tried:
    """What a candidate is worth. ratio: its perplexity over the source's. tokens_per_s: for one client and for eight."""

    name: str
    ratio: float
    size_bytes: int
    tokens_per_s: tuple[float, float]

    def speed(self, other: Tried) -> float:
        """How many times as fast as the other: the geometric mean over one client and eight."""
        one, eight = (mine / theirs for mine, theirs in zip(self.tokens_per_s, other.tokens_per_s, strict=True))
        return float((one * eight) ** 0.5)


def ladder(*, uses_gptq: bool) -> list[Candidate]:
    """What `auto` tries: int8 first, which the others are compared with."""
    return [Candidate(groups, uses_gptq=uses_gptq and bool(groups)) for groups in _LADDER]


def choose(tried: Sequence[Tried], max_ratio: float) -> tuple[Tried, tuple[str, ...]]:
    """(the fastest within the ratio, why), the first of `tried` being int8. Without one within it, the one that loses least."""
    first = tried[0]
    within = [each for each in tried if each.ratio <= max_ratio]
    chosen = max(within, key=lambda each: each.speed(first)) if within else min(tried, key=lambda each: each.ratio)
    told = [
        f"{each.name}: perplexity x {each.ratio:.4f}, {each.size_bytes / 1e6:.0f} MB, {each.tokens_per_s[0]:.0f} tokens/s "
        f"for one client and {each.tokens_per_s[1]:.0f} for eight, {each.speed(first):.2f} times as fast as {first.name}."
        for each in tried
    ]
    if not within:
        return chosen, (*told, f"None is within x {max_ratio:g}; {chosen.name} loses least.")
    why = f"{chosen.name} is the fastest of the {len(within)} of {len(tried)} builds within x {max_ratio:g}."
    return chosen, (*told, why)
