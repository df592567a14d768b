"""Where `slmops eval` reads evaluations: at the daemon that the user chose, else in this process's home."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_registry.evaluations import Evaluation
    from server.settings.daemon import Settings


def evaluations_of(settings: Settings, model: str, kind: str | None) -> list[Evaluation]:
    """Of all versions of a name, or of one label, the newest first. kind: only these. Raises CommandFailed, RegistryError."""
    if settings.url is None:
        return _of_home(settings, model, kind)
    from server.cli.daemon import Daemon

    with Daemon.configured(settings) as daemon:
        path = f"/admin/models/{quote(model, safe='')}/evaluations{f'?kind={kind}' if kind else ''}"
        return [_read(each) for each in daemon.require().call("GET", path)["data"]]


def _of_home(settings: Settings, model: str, kind: str | None) -> list[Evaluation]:
    from model_registry.database import Database
    from model_registry.errors import ModelNotFound
    from model_registry.evaluations import EvaluationStore
    from model_registry.registry import Registry

    with Database(settings.home) as database:
        label = model
        if ":" in model:
            with suppress(ModelNotFound):  # it is gone, or an endpoint's
                label = Registry(database).resolve(model).label
        return EvaluationStore(database).of(label, kind)


def _read(body: Mapping[str, Any]) -> Evaluation:
    from model_registry.evaluations import Evaluation

    created_at = datetime.fromtimestamp(body["created_at"], UTC)
    return Evaluation(**{name: body[name] for name in ("version", "kind", "job", "metrics", "details")}, created_at=created_at)
