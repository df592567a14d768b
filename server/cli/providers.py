"""`slmops providers`: what this machine can run models on. Asks the machine itself; no daemon is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.cli.models import AsJson
from server.cli.terminal import print_json, print_line, print_note, print_table, size

if TYPE_CHECKING:
    from runtime.machine.execution_provider import ExecutionProvider


def providers(as_json: AsJson = False) -> None:
    """List the execution providers: device, memory, versions, usable or not, and the command that would make it usable."""
    import asyncio

    from runtime.machine.provider_directory import ProviderDirectory

    report = asyncio.run(ProviderDirectory().report())
    if as_json:
        from server.routes.providers import provider_list

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
