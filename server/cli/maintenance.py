"""`slmops doctor`, `providers`, `verify`, `gc` and `version`: the installation, the machine and what is on disk.

`doctor` and `providers` change nothing and need no daemon.
"""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.configuration import settings_from
from server.cli.failures import FAILED, CommandFailed
from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_note, print_table, size
from server.version import slmops_version

if TYPE_CHECKING:
    from runtime.machine.execution_provider import ExecutionProvider
    from runtime.machine.installation import Finding
    from server.cli.registry_access import RegistryCommands


def doctor(as_json: AsJson = False) -> None:
    """Check the installation, home folder, disk, memory and port; print how to fix each problem. Exit code 1 if there is any."""
    from runtime.machine.installation import Status

    findings = examine()
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(("CHECK", "STATUS", "FOUND"), [(each.subject, each.status.value, each.message) for each in findings])
        for finding in findings:
            if finding.remedy:
                print_line(f"\n{finding.subject}: {finding.message}\n  to fix it: {finding.remedy}")
    if any(finding.status is Status.PROBLEM for finding in findings):
        raise typer.Exit(FAILED)


def examine() -> list[Finding]:
    """Everything, in the order of a person's questions."""
    from runtime.machine.installation import Finding, Status, check_installation, installed_packages
    from server.cli.daemon import Daemon
    from server.cli.environment import check_disk, check_home, check_memory, check_port
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


def providers(as_json: AsJson = False) -> None:
    """List the execution providers: device, memory, versions, usable or not, and the command that would make it usable."""
    import asyncio

    from runtime.machine.provider_directory import ProviderDirectory

    report = asyncio.run(ProviderDirectory().report())
    if as_json:
        from server.admin.providers import provider_list

        print_json(provider_list(report).model_dump())
        return
    columns = ("PROVIDER", "DEVICE", "KIND", "MEMORY>", "ENGINES", "VERSIONS", "USABLE", "PROVEN")
    print_table(columns, [_row(provider) for provider in report.providers])
    for provider in report.providers:
        if not provider.usable:
            print_line(f"\n{provider.short} on {provider.device}: {provider.why_not}\n  to use it: {provider.remedy}")
    if report.problem:
        print_note(report.problem)


def _row(provider: ExecutionProvider) -> tuple[str, ...]:
    return (
        provider.short,
        provider.device,
        provider.kind.value,
        size(provider.memory_bytes) if provider.memory_bytes else "-",
        ", ".join(provider.engines) or "-",
        ", ".join(provider.versions) or "-",
        "yes" if provider.usable else "no",
        "yes" if provider.proven else "not yet",
    )


def verify(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="All models when left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare every file of a model with its checksum. Exit code 1 when one differs."""
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings_from()) as registry:
        problems = {label: registry.verify(label)["problems"] for label in _labels(registry, model)}
    if as_json:
        print_json(problems)
    else:
        for label, found in problems.items():
            print_line(f"{label}: {'damaged' if found else 'ok'}")
            for problem in found:
                print_line(f"  {problem['path']}: {problem['message']}")
    broken = [label for label, found in problems.items() if found]
    if broken:
        raise CommandFailed(f"{', '.join(broken)} is damaged; run `slmops rm --force`, then pull it again")


def _labels(registry: RegistryCommands, model: str | None) -> list[str]:
    """Of all versions that are to be verified: all, those of a model, or one."""
    if model is None:
        return [version["label"] for found in registry.models() for version in found["versions"]]
    shown = registry.show(model)
    return [version["label"] for version in shown["versions"]] if "versions" in shown else [shown["label"]]


def collect_garbage(as_json: AsJson = False) -> None:
    """Delete files that no version needs: of removed models, and of pulls that were cut off."""
    from server.cli.registry_access import open_registry_access

    with open_registry_access(settings_from()) as registry:
        freed = registry.collect_garbage()
    if as_json:
        print_json({"freed_bytes": freed})
    else:
        print_line(f"{size(freed)} freed")


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
