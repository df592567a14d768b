"""`slmops doctor`: does what is installed fit together, and can a daemon run here. Changes nothing."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from server.cli.configuration import settings_from
from server.cli.failures import FAILED
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_table

if TYPE_CHECKING:
    from runtime.machine.installation import Finding


def doctor(as_json: AsJson = False) -> None:
    """Check the installation, home folder, disk, memory and port; say how to mend what is wrong. Exit code 1 if anything is."""
    from runtime.machine.installation import Status

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(("CHECK", "STATUS", "FOUND"), [(each.subject, each.status.value, each.message) for each in findings])
        for finding in findings:
            if finding.remedy:
                print_line(f"\n{finding.subject}: {finding.message}\n  to mend it: {finding.remedy}")
    if any(finding.status is Status.PROBLEM for finding in findings):
        raise typer.Exit(FAILED)


def examine() -> list[Finding]:
    """Everything, in the order of a person's questions."""
    from runtime.machine.installation import Finding, Status, check_installation, installed_packages
    from server.cli.daemon import Daemon
    from server.cli.surroundings import check_disk, check_home, check_memory, check_port
    from server.version import slmops_version

    settings = settings_from()
    with Daemon.configured(settings) as daemon:
        return [
            Finding("slmops", Status.OK, slmops_version()),
            Finding("python", Status.OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
            *check_installation(installed_packages()),
            check_home(settings.home),
            check_disk(settings.home),
            check_memory(),
            check_port(settings.host, settings.port, daemon.is_running),
        ]
