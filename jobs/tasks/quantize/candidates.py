"""Which builds there are, what each is worth, and which to take. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from model_registry.conversion.quantizers.recipe import FLOAT_BITS, GROUPS, HALF_BITS, Algorithm, Group, Recipe, plain_recipe


@dataclass(frozen=True, slots=True)
class Candidate:
    """A build: its name, unique among those of a job, and how its matrices are rounded."""

    name: str
    recipe: Recipe


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


def asked(
    precision: str,
    int4: Collection[Group],
    num_layers: int,
    *,
    algorithm: Algorithm | None = None,
    head_bits: int | None = None,
    block_size: int | None = None,
    is_symmetric: bool | None = None,
) -> Candidate:
    """The one build of a precision that is not auto. int4: the groups at 4 bits when that is `mixed`."""
    widths = {"int8": 8, "int4": 4, "mixed": 4, "fp16": HALF_BITS, "fp32": FLOAT_BITS}
    bits = widths[precision]
    head = head_bits or max(bits, 8)
    kept = [name for group, names in GROUPS.items() if group not in int4 for name in names] if precision == "mixed" else []
    chosen = algorithm or ("k-quant" if 4 in (bits, head) else "rtn")
    words = [precision, *(f"{group}4" for group in GROUPS if precision == "mixed" and group in int4)]
    words += [chosen] if 4 in (bits, head) else []
    words += [f"b{block_size}"] if block_size else []
    words += [] if is_symmetric is None else ["symmetric" if is_symmetric else "asymmetric"]
    words += [f"head{head}"] if head != max(bits, 8) else []
    exceptions = [f"blk.{layer}.{name}" for layer in range(num_layers) for name in kept]
    recipe = plain_recipe(chosen, bits, head, exceptions=exceptions, block_size=block_size, is_symmetric=is_symmetric)
    return Candidate("-".join(words), recipe)


def choose(tried: Sequence[Tried], max_ratio: float) -> tuple[Tried, tuple[str, ...]]:
    """(the fastest within the ratio, why), the first of `tried` being int8. Without one within it, the one that loses least."""
    first = tried[0]
    within = [each for each in tried if each.ratio <= max_ratio]
    chosen = max(within, key=lambda each: each.speed(first)) if within else min(tried, key=lambda each: each.ratio)
    all_told = [told(each, first) for each in tried]
    if not within:
        return chosen, (*all_told, f"None is within x {max_ratio:g}; {chosen.name} loses least.")
    why = f"{chosen.name} is the fastest of the {len(within)} of {len(tried)} builds within x {max_ratio:g}."
    return chosen, (*all_told, why)


def told(tried: Tried, other: Tried) -> str:
    """What a build is worth beside another one, as a sentence."""
    one, eight = tried.tokens_per_s
    return (
        f"{tried.name}: perplexity x {tried.ratio:.4f}, {tried.size_bytes / 1e6:.0f} MB, {one:.0f} tokens/s for one client and "
        f"{eight:.0f} for eight, {tried.speed(other):.2f} times as fast as {other.name}."
    )
