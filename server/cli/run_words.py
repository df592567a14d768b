"""What the words after `slmops run` mean: a model, and a prompt. Pure.

1. With `--model`, every word belongs to the prompt.
2. A first word that names an installed or catalogue model, or is a reference (`hf://...`), is the model; the others are the prompt.
3. A first word that only looks like a model's name (`gpt-4o`, `qwen:0.5b`, `Org/Name`) is taken for one: it is found missing later.
4. A first word that resembles a known name is refused with that name, rather than sent as a prompt.
5. Else every word belongs to the prompt of the default model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from model_registry.name_matching import nearest_names, same_name
from server.cli.failures import MISUSED, CommandFailed
from server.cli.model_names import ModelNames

_SCHEMES = ("hf://", "pypi://", "foundry://", "file://")
_NAME_LIKE = re.compile(r"(?=.*[A-Za-z])(?=.*[0-9:/])[A-Za-z0-9][\w.-]*(?:[:/][\w.-]+){0,2}", re.ASCII)
_LEAST_CHARS = 4  # shorter words resemble too much


@dataclass(frozen=True, slots=True)
class RunWords:
    """model: None for the default. prompt: None when no word is left for it."""

    model: str | None
    prompt: str | None


def read_words(words: Sequence[str], names: ModelNames) -> RunWords:
    """Without `--model`. Raises CommandFailed for a word that was probably meant as a model."""
    if not words:
        return RunWords(None, None)
    first, rest = words[0], _joined(words[1:])
    if names.installed_label(first) or _is_in_catalogue(first, names) or first.startswith(_SCHEMES) or _NAME_LIKE.fullmatch(first):
        return RunWords(first, rest)
    near = _resembling(first, names)
    if near:
        meant = " or ".join(f"`slmops run {name}`" for name in near)
        raise CommandFailed(f"{first!r} is no model. Did you mean {meant}? A prompt: `slmops run -m {near[0]} {first}`", MISUSED)
    return RunWords(None, _joined(words))


def prompt_of(words: Sequence[str]) -> str | None:
    """With `--model`."""
    return _joined(words)


def _joined(words: Sequence[str]) -> str | None:
    return " ".join(words) if words else None


def _is_in_catalogue(word: str, names: ModelNames) -> bool:
    return same_name(word.partition(":")[0], names.catalogue) is not None


def _resembling(word: str, names: ModelNames) -> list[str]:
    if len(word) < _LEAST_CHARS or any(character.isspace() for character in word):
        return []
    return nearest_names(word, [*names.models, *names.catalogue])
