"""Which texts may name a model, a version or an alias, and how a label splits. Knows nothing about what exists."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_registry.errors import InvalidName
from model_registry.records import LIVE

MAX_NAME_CHARS = 96
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
ALIAS_PATTERN = r"[a-z](?:[a-z0-9._-]*[a-z0-9])?"  # of the whole name
_ALIAS = re.compile(ALIAS_PATTERN)


@dataclass(frozen=True, slots=True)
class Label:
    """`name`, `name:NUMBER` or `name:alias`. number and alias are both None for a bare name."""

    name: str
    number: int | None = None
    alias: str | None = None

    @property
    def is_bare(self) -> bool:
        return self.number is None and self.alias is None

    @property
    def alias_or_live(self) -> str:
        return self.alias or LIVE


def parse_label(text: str) -> Label:
    """Never raises: a text that names nothing possible becomes a label that nothing matches."""
    name, _, tag = text.strip().partition(":")
    if not tag:
        return Label(name)
    if tag.isascii() and tag.isdigit() and len(tag) < 10:
        return Label(name, number=int(tag))
    return Label(name, alias=tag)


def check_model_name(name: str) -> str:
    """`name` itself. Raises InvalidName."""
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise InvalidName(
            f"{name!r} cannot name a model: use up to {MAX_NAME_CHARS} lower-case letters, digits, dots, dashes and "
            "underscores, with a letter or digit at both ends."
        )
    return name


def check_alias_name(name: str) -> str:
    """`name` itself. Raises InvalidName."""
    if len(name) > MAX_NAME_CHARS or not _ALIAS.fullmatch(name):
        raise InvalidName(
            f"{name!r} cannot name an alias: begin with a lower-case letter, then letters, digits, dots, dashes and underscores."
        )
    return name


def model_name_from(text: str) -> str:
    """The nearest possible model name to any text, e.g. `Qwen2.5-0.5B-Instruct` -> `qwen2.5-0.5b-instruct`."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:MAX_NAME_CHARS].strip("._-")
    return name or "model"
