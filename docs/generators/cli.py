"""The page of the command line: every command with its arguments and options, walked from the program itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from docs.generators import markdown
from server.cli.program import build

INTRODUCTION = """\
Every command of the `slmops` program. `slmops COMMAND --help` prints the same in a terminal. Commands that print a table take
`--json`, for programs. They end with 0 when all went well, with 1 when something failed, and with 2 when the command line itself is
wrong. Settings come from flags, `SLMOPS_*` variables and `slmops.toml`: see [Settings](settings.md)."""


def page() -> str:
    program = typer.main.get_command(build())
    return markdown.page("Command line", INTRODUCTION, *_commands(program, "slmops"))


def _commands(command: Any, path: str, level: int = 2) -> Iterator[str]:
    for name, each in command.commands.items():
        if each.hidden:
            continue
        yield f"{'#' * level} `{path} {name}`"
        if hasattr(each, "commands"):
            yield markdown.sentence(each.help or "")
            yield from _commands(each, f"{path} {name}", level + 1)
        else:
            yield from _described(each, f"{path} {name}")


def _described(command: Any, path: str) -> Iterator[str]:
    context = typer.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    yield f"```\n{usage}\n```"
    shown = [param for param in command.params if not getattr(param, "hidden", False) and param.name != "help"]
    rows = [(_name(param), _default(param), markdown.sentence(getattr(param, "help", None) or "")) for param in shown]
    yield markdown.table(("argument or option", "default", "meaning"), rows)


def _name(param: Any) -> str:
    if param.param_type_name == "argument":
        return markdown.code((param.metavar or param.name.upper()).strip("[]"))
    return ", ".join(markdown.code(name) for name in sorted([*param.opts, *param.secondary_opts], key=len, reverse=True))


def _default(param: Any) -> str:
    default = param.default
    if param.required:
        return "required"
    if default is None or isinstance(default, bool) or callable(default) or default == []:
        return ""
    return markdown.code(str(getattr(default, "value", default)))
