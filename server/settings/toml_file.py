"""`slmops.toml`: where it is looked for, and its content as plain values. Knows no setting."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_registry.text_files import why_not_utf8, without_bom

FILE_NAME = "slmops.toml"
ENV_PREFIX = "SLMOPS_"
DEFAULT_HOME = "~/.slmops"


class InvalidSettings(ValueError):
    """A setting's value cannot be used; the message names each one, where it came from, and what is allowed."""


def find_file(given: Mapping[str, Any]) -> Path | None:
    """`slmops.toml` in the current folder, else in the home folder (by flag, by variable, or the default one)."""
    home = given.get("home") or os.environ.get(ENV_PREFIX + "HOME") or DEFAULT_HOME
    for folder in (Path.cwd(), Path(home).expanduser()):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def read_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = without_bom(path.read_bytes())
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read: {error.strerror}; make it readable or remove it") from None
    encoding = why_not_utf8(content)
    if encoding is not None:
        raise InvalidSettings(f"{path} cannot be read: {encoding}")
    try:
        return tomllib.loads(content.decode())
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{path} is not valid TOML: {error}") from None
