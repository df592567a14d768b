"""What the shell completes: models, versions, aliases, catalog names, running models, jobs, kinds, params, keys.

Asks the daemon where one answers at once, else reads the home; changes nothing and creates nothing. It never fails or prints: what
goes wrong completes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import typer

Completer = Callable[[typer.Context, list[str], str], list[str]]
_TIMEOUT_S = 0.5  # of a daemon's answer
_OF_RUNNING = frozenset({"stop", "reload", "reset"})  # commands whose model must be loaded


def _quietly(find: Callable[[typer.Context], Iterable[str]]) -> Completer:
    def complete(context: typer.Context, arguments: list[str], incomplete: str) -> list[str]:
        logging.disable()
        try:
            return [each for each in find(context) if each.startswith(incomplete)]
        except Exception:
            return []  # whatever is wrong, a shell that completes must not show it
        finally:
            logging.disable(logging.NOTSET)

    return complete


def _models(context: typer.Context) -> Iterable[str]:
    """Names and labels; of the loaded ones for commands on loaded models."""
    if context.info_name in _OF_RUNNING:
        return [label for row in _answer(context, "/admin/models") for label in (_name(row["id"]), row["id"])]
    return [label for model in _described(context) for label in (model["name"], *_labels(model))]


def _versions(context: typer.Context) -> Iterable[str]:
    return [label for model in _described(context) for label in _labels(model)]


def _pullable(context: typer.Context) -> Iterable[str]:
    from model_registry.catalog import load_catalog

    entries = load_catalog().entries
    builds = [f"{entry.name}:{build.name}" for entry in entries if len(entry.builds) > 1 for build in entry.builds]
    return [*(entry.name for entry in entries), *builds]


def _jobs(context: typer.Context) -> Iterable[str]:
    return [job["id"] for job in _answer(context, "/admin/jobs?limit=100")]


def _keys(context: typer.Context) -> Iterable[str]:
    return [key["name"] for key in _answer(context, "/admin/keys")]


def _kinds(context: typer.Context) -> Iterable[str]:
    from jobs.task import JobKind

    return [kind.value for kind in JobKind]


def _params(context: typer.Context) -> Iterable[str]:
    """`NAME=`, of the kind that stands before."""
    from jobs.task import JobKind
    from jobs.tasks.kinds import task_for

    kinds = set(JobKind)
    words = [context.params.get("kind"), *context.args]  # before an unfinished option, arguments are not parsed yet
    kind = next((word for word in words if word in kinds), None)
    return [f"{name}=" for name in task_for(JobKind(kind)).params.model_fields] if kind else []


COMPLETERS: Mapping[str, Completer] = {  # by an argument's metavar, or an option's name
    "MODEL": _quietly(_models),
    "[MODEL]": _quietly(_models),
    "MODEL[:VERSION]": _quietly(_models),
    "OTHER": _quietly(_models),
    "model": _quietly(_models),
    "MODEL:VERSION": _quietly(_versions),
    "TUNED": _quietly(_versions),
    "REF": _quietly(_pullable),
    "JOB": _quietly(_jobs),
    "[JOB]": _quietly(_jobs),
    "KIND": _quietly(_kinds),
    "kind": _quietly(_kinds),
    "NAME=VALUE": _quietly(_params),
    "KEY": _quietly(_keys),
}


# ---- inside ----


def _described(context: typer.Context) -> Sequence[Mapping[str, Any]]:
    """All models: of the daemon at a chosen address, else of the home, if there is one."""
    from server.cli.configuration import settings_from

    settings = settings_from(url=context.params.get("url"))
    if settings.url is not None:
        return _answer(context, "/admin/registry/models")
    from model_registry.database import Database
    from model_registry.description import describe_model
    from model_registry.registry import Registry

    with Database(settings.home) as database:
        return [describe_model(model) for model in Registry(database).models()] if database.exists() else []


def _answer(context: typer.Context, path: str) -> list[dict[str, Any]]:
    """The data of a daemon's list. Raises when none answers in time."""
    from server.cli.configuration import settings_from
    from server.cli.daemon import Daemon

    with Daemon.configured(settings_from(url=context.params.get("url")), timeout_s=_TIMEOUT_S) as daemon:
        data: list[dict[str, Any]] = daemon.call("GET", path)["data"]
    return data


def _labels(model: Mapping[str, Any]) -> list[str]:
    numbers = [str(version["number"]) for version in model["versions"]]
    return [f"{model['name']}:{each}" for each in (*numbers, *model["aliases"])]


def _name(label: str) -> str:
    return label.partition(":")[0]
