"""`slmops version`: which slmops this is, and on which libraries it stands."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import Annotated

import typer

from server.cli.terminal import print_json, print_line
from server.version import slmops_version

_LIBRARIES = ("onnxruntime", "tokenizers", "fastapi", "uvicorn")


def version(
    as_json: Annotated[bool, typer.Option("--json", help="With the versions of its main libraries.")] = False,
) -> None:
    """Print the version."""
    if not as_json:
        print_line(f"slmops {slmops_version()}")
        return
    print_json(
        {
            "slmops": slmops_version(),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            **{name: _version_of(name) for name in _LIBRARIES},
        }
    )


def _version_of(distribution: str) -> str | None:
    try:
        return installed(distribution)
    except PackageNotFoundError:
        return None
