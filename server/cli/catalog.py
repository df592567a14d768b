"""`slmops catalog`: the models that can be pulled by a short name."""

from __future__ import annotations

from server.cli.models import AsJson
from server.cli.terminal import print_json, print_table, size

_COUNTS = ((10**9, "B"), (10**6, "M"))


def catalog(as_json: AsJson = False) -> None:
    """List the models that `slmops pull NAME` knows; NAME:BUILD picks one of several builds."""
    from model_registry.catalog import load_catalog

    entries = load_catalog().entries
    if as_json:
        print_json(
            [
                {
                    "name": entry.name,
                    "description": entry.description,
                    "licence": entry.licence,
                    "parameters": entry.parameters,
                    "embedded": entry.embedded,
                    "builds": [
                        {"name": build.name, "source": str(build.source), "download_bytes": build.download_bytes}
                        for build in entry.builds
                    ],
                }
                for entry in entries
            ]
        )
        return
    print_table(
        ("NAME", "PARAMETERS>", "DOWNLOAD>", "BUILDS", "LICENCE", "DESCRIPTION"),
        [
            (
                entry.name,
                _count(entry.parameters),
                size(entry.builds[0].download_bytes),
                ", ".join(build.name for build in entry.builds),
                entry.licence,
                entry.description,
            )
            for entry in entries
        ],
    )


def _count(number: int) -> str:
    """`1_700_000_000` -> `1.7 B`."""
    for unit, name in _COUNTS:
        if number >= 0.9995 * unit:  # what rounds to the unit is shown in it
            return f"{number / unit:.3g} {name}"
    return str(number)
